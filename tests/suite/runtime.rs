//! A plugin's runtime is there wherever the plugin's code runs.

use host_tests::Setup;

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
    // One never ends; what the last drop spawned may have.
    assert!(!log.contains("cancelled_tasks=0"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn threads_are_named_after_the_plugin() {
    let host = Setup::new().plugin("runtime").start().await;
    let name = host.get("/runtime/thread").await.text();
    assert!(name.starts_with("runtime"), "{name}");
}
