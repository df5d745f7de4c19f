//! A plugin that panics too often gets no more requests until it is replaced.

use host_tests::{Library, Setup};

#[tokio::test]
async fn too_many_panics_take_a_plugin_out_until_it_is_replaced() {
    let host = Setup::new()
        .library("libpanics.so", &Library::plugin("panics"))
        .plugin("versioned")
        .arg("--panic-limit=3")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(host.get("/panics/handler").await.status, 500);
        assert_eq!(host.get("/panics").await.status, 200);
    }
    assert_eq!(host.get("/panics/handler").await.status, 500);
    let reply = host.get("/panics").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(host.get("/versioned").await.status, 200, "others serve on");
    let line = host.log().eventually(&["ERROR", "Too many panics"]).await;
    for part in ["plugin=panics", "generation=1", "panics=3", "window=60s"] {
        assert!(line.contains(part), "{line}");
    }

    host.folder()
        .put("libpanics.so", &Library::plugin("panics").marked("v2"));
    host.serves("/panics", "fine").await;
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let lines = exit
        .stderr
        .iter()
        .filter(|line| line.contains("Too many panics"));
    assert_eq!(lines.count(), 1, "{exit}");
}

#[tokio::test]
async fn panics_of_background_tasks_count_as_well() {
    let host = Setup::new()
        .plugin("panics")
        .arg("--panic-limit=2")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(host.get("/panics/task").await.text(), "the task panicked");
    }
    assert_eq!(host.get("/panics").await.status, 503);
}

#[tokio::test]
async fn panics_that_are_far_apart_are_not_too_many() {
    let host = Setup::new()
        .plugin("panics")
        .arg("--panic-limit=2")
        .arg("--panic-window=1ms")
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(host.get("/panics/handler").await.status, 500);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(host.get("/panics").await.status, 200);
}
