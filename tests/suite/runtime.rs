//! A plugin's code runs inside the plugin's own tokio runtime, wherever the host calls it.

use host_tests::{Setup, within};
use hyper::Version;

/// The text of the fixture `runtime` after it has used every feature of the runtime.
const ALL: &str = "timer, task, socket, file of 1 bytes";

#[tokio::test]
async fn the_runtime_is_there_from_start_to_end() {
    let host = Setup::new().plugin("runtime").start().await;
    for mut connection in [host.http1().await, host.http2().await] {
        assert_eq!(connection.get("/runtime").await.text(), ALL);
        assert_eq!(connection.get("/runtime/stream").await.text(), ALL);
    }
    host.log().eventually(&["task", ALL]).await;

    let mut wire = host.wire().await;
    wire.send("GET /runtime/pending HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["waits"]).await;
    drop(wire);
    host.log().eventually(&["drop of future spawned"]).await;

    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let log = exit.stderr.join("\n");
    for line in [
        &format!("init {ALL}"),
        &format!("shutdown {ALL}"),
        "drop of app spawned",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    // The background task of the fixture never ends, so the stop cancels at least one task. The task that the last drop
    // spawned may have ended before, so the number is not exact.
    assert!(!log.contains("cancelled_tasks=0"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn threads_are_named_after_the_plugin() {
    let host = Setup::new().plugin("runtime").start().await;
    let name = host.get("/runtime/thread").await.text();
    assert!(name.starts_with("runtime"), "{name}");
}

#[tokio::test]
async fn handlers_and_bodies_that_never_wait_leave_the_threads_to_others() {
    let host = Setup::new()
        .plugin("never_waits")
        .plugin("hello")
        .arg("--threads=2")
        .start()
        .await;
    let mut lines_seen = 0;
    for path in ["/semaphore", "/budget", "/channel", "/body"] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut clients = Vec::new();
            for _ in 0..3 {
                let mut client = host.connect(version).await;
                let path = format!("/never_waits{path}");
                clients.push(tokio::spawn(async move { client.get(&path).await }));
            }
            host.log().nth_with(lines_seen + 2, &["spins"]).await;
            let answer = within("another app", host.get("/quiet")).await;
            assert_eq!(answer.text(), "hello world");
            // When the client disconnects, the host drops the future, which ends the endless loop.
            clients.iter().for_each(|client| client.abort());
            host.log().nth_with(lines_seen + 2, &["left"]).await;
            lines_seen += 3;
        }
    }
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_handler_has_no_task_id_and_what_it_spawns_has_one() {
    let host = Setup::new().plugin("never_waits").start().await;
    let ids = host.get("/never_waits/id").await.text();
    assert_eq!(ids, "handler false, spawned true");
}

#[tokio::test]
async fn a_handler_blocks_on_a_future_where_axum_lets_it() {
    let host = Setup::new().plugin("runtime").start().await;
    for how in ["block_in_place", "spawn_blocking"] {
        let path = format!("/runtime/blocking/{how}");
        assert_eq!(host.get(&path).await.text(), "waited");
    }
    assert_eq!(host.get("/runtime/blocking/block_on").await.status, 500);
    let exit = host.stop().await;
    let reason = "Cannot start a runtime from within a runtime";
    assert!(exit.to_string().contains(reason), "{exit}");
}

#[tokio::test]
async fn tasks_that_block_stop_neither_timers_nor_each_other() {
    let host = Setup::new()
        .plugin("runtime")
        .arg("--threads=1")
        .start()
        .await;
    assert_eq!(host.get("/runtime/barrier").await.text(), "both came");
    for woken_by in ["spawn", "timer"] {
        let path = format!("/runtime/block/{woken_by}");
        assert_eq!(host.get(&path).await.text(), "a task blocks");
        let timer = within("a timer", host.get("/runtime/sleep")).await;
        assert_eq!(timer.text(), "slept");
        assert_eq!(host.get("/runtime/release").await.text(), "released");
    }
}
