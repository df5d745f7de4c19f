//! A panic ends one request and nothing else.

use host_tests::{Exit, Host, Library, Line, Setup, empty, within};
use http_body_util::BodyExt;
use hyper::{Request, Version};

#[tokio::test]
async fn a_panic_in_a_handler_is_500_and_one_line_with_message_and_place() {
    let host = panics().await;
    let mut connection = host.http1().await;
    let reply = connection.get("/panics/handler").await;
    assert_eq!(reply.status, 500);
    assert!(
        !reply.text().contains("panic"),
        "the client is not told: {}",
        reply.text()
    );
    assert_eq!(connection.get("/panics").await.text(), "fine");
    assert_one_report(&stop_unharmed(host).await, "panic in handler");
}

#[tokio::test]
async fn a_panic_in_a_later_poll_is_500() {
    let host = panics().await;
    for mut connection in [host.http1().await, host.http2().await] {
        assert_eq!(connection.get("/panics/later").await.status, 500);
        assert_eq!(connection.get("/panics").await.text(), "fine");
    }
    assert_eq!(
        count_reports(&stop_unharmed(host).await, "panic in later poll"),
        2
    );
}

#[tokio::test]
async fn a_panic_in_a_body_cuts_the_response_off() {
    let host = panics().await;
    let mut wire = host.wire().await;
    wire.send("GET /panics/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    // The part of the body before the panic may be missing. The last chunk, which ends a complete body, is never sent.
    let response = wire.rest().await;
    assert!(!response.ends_with("0\r\n\r\n"), "{response}");

    let mut http2 = host.http2().await;
    let request = Request::get("/panics/stream").body(empty()).unwrap();
    let is_whole = match http2.send(request).await {
        Ok(response) => within("the end", response.into_body().collect())
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!is_whole);
    assert_eq!(http2.get("/panics").await.text(), "fine");
    assert_eq!(
        count_reports(&stop_unharmed(host).await, "panic in body stream"),
        2
    );
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_future_harms_nobody() {
    let host = panics().await;
    let mut wire = host.wire().await;
    wire.send("GET /panics/future-drop HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["future waits"]).await;
    drop(wire);
    host.log().eventually(&["panic in drop of future"]).await;
    assert_one_report(&stop_unharmed(host).await, "panic in drop of future");
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_body_harms_nobody() {
    let host = panics().await;
    let mut wire = host.wire().await;
    wire.send("GET /panics/body-drop HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wire.until("first").await;
    drop(wire);
    host.log().eventually(&["panic in drop of body"]).await;
    assert_one_report(&stop_unharmed(host).await, "panic in drop of body");
}

#[tokio::test]
async fn a_panic_that_is_resumed_is_500_and_one_line() {
    let host = panics().await;
    let mut connection = host.http1().await;
    assert_eq!(connection.get("/panics/resumed").await.status, 500);
    assert_eq!(connection.get("/panics").await.text(), "fine");
    // No line can name the place of such a panic, because the panic hook is not called.
    assert_eq!(
        error_lines(&stop_unharmed(host).await, "panic resumed").len(),
        1
    );
}

#[tokio::test]
async fn a_panic_in_the_drop_of_bytes_harms_nobody() {
    let host = panics().await;
    let mut connection = host.http1().await;
    let reply = connection.get("/panics/owner").await;
    assert_eq!(reply.text(), "panic in drop of bytes");
    assert_eq!(connection.get("/panics").await.text(), "fine");
    assert_one_report(&stop_unharmed(host).await, "panic in drop of bytes");
}

#[tokio::test]
async fn a_panic_in_a_waker_harms_nobody() {
    let host = panics().await;
    let mut wire = host.wire().await;
    wire.send("GET /panics/waker HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        .await;
    host.log().eventually(&["body is waited for"]).await;
    wire.send("ab").await;
    host.log().eventually(&["panic in waker"]).await;
    drop(wire);
    assert_one_report(&stop_unharmed(host).await, "panic in waker");
}

#[tokio::test]
async fn a_runtime_that_cannot_be_left_ends_the_request() {
    let host = panics().await;
    let mut connection = host.http1().await;
    assert_eq!(connection.get("/panics/guard").await.status, 500);
    for _ in 0..3 {
        assert_eq!(connection.get("/panics").await.text(), "fine");
    }
    assert_eq!(
        error_lines(&stop_unharmed(host).await, "dropped out of order").len(),
        1
    );
}

#[tokio::test]
async fn a_runtime_that_cannot_be_left_in_a_later_frame_cuts_the_response_off() {
    let host = panics().await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut connection = host.connect(version).await;
        let request = Request::get("/panics/stream-guard").body(empty()).unwrap();
        let is_whole = match connection.send(request).await {
            Ok(response) => within("the end", response.into_body().collect())
                .await
                .is_ok(),
            Err(_) => false,
        };
        assert!(!is_whole);
    }
    assert_eq!(
        error_lines(&stop_unharmed(host).await, "dropped out of order").len(),
        2
    );
}

#[tokio::test]
async fn a_panic_in_the_drop_of_trailers_harms_nobody() {
    let host = panics().await;
    let mut connection = host.http2().await;
    let reply = connection.get("/panics/trailers").await;
    assert_eq!(reply.text(), "fine");
    host.log().eventually(&["panic in drop of trailers"]).await;
    assert_one_report(&stop_unharmed(host).await, "panic in drop of trailers");
}

#[tokio::test]
async fn a_panic_in_a_task_ends_that_task() {
    let host = panics().await;
    assert_eq!(host.get("/panics/task").await.text(), "the task panicked");
    assert_one_report(&stop_unharmed(host).await, "panic in task");
}

#[tokio::test]
async fn a_panic_hook_of_the_apps_own_takes_nothing_out_of_the_log() {
    for (hook, calls) in [("polite hook", 2), ("silent hook", 2), ("no hook", 0)] {
        let library = Library::plugin("panics").marked(hook);
        let host = Setup::new().library("libpanics.so", &library).start().await;
        assert_eq!(host.get("/panics/handler").await.status, 500);
        assert_eq!(host.get("/panics/task").await.text(), "the task panicked");
        let exit = host.stop().await;
        assert_eq!(exit.code, Some(0), "{exit}");
        for message in ["panic in handler", "panic in task"] {
            let lines = exit.stderr.iter();
            let reports: Vec<_> = lines
                .filter(|line| line.contains("ERROR") && line.contains(message))
                .collect();
            assert_eq!(reports.len(), 1, "{hook}: {exit}");
            assert!(reports[0].contains("src/lib.rs:"), "{hook}: {reports:?}");
        }
        let hook_lines = exit
            .stderr
            .iter()
            .filter(|line| line.contains("the app's own hook"));
        assert_eq!(hook_lines.count(), calls, "{hook}: {exit}");
    }
}

#[tokio::test]
async fn a_panic_at_the_end_does_not_keep_the_host() {
    let host = Setup::new()
        .library(
            "libpanics.so",
            &Library::plugin("panics").marked("shutdown"),
        )
        .start()
        .await;
    assert_one_report(&stop_unharmed(host).await, "panic in shutdown");
}

/// Starts a host with the fixture `panics`.
async fn panics() -> Host {
    Setup::new().plugin("panics").start().await
}

/// Asserts that the host still serves the fixture and stops with exit code 0. Returns the output of the host.
async fn stop_unharmed(host: Host) -> Exit {
    host.serves("/panics", "fine").await;
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    exit
}

/// Asserts that the log reports the panic with this message exactly once.
fn assert_one_report(exit: &Exit, message: &str) {
    assert_eq!(count_reports(exit, message), 1, "{exit}");
}

/// Returns the number of lines that report the panic with this message, and asserts that each line names the place of
/// the panic.
fn count_reports(exit: &Exit, message: &str) -> usize {
    let lines = error_lines(exit, message);
    for line in &lines {
        assert!(line.text.contains("src/lib.rs:"), "{line:?}");
    }
    lines.len()
}

/// Returns the fixture's lines with this message, and asserts that all have the level error.
fn error_lines(exit: &Exit, message: &str) -> Vec<Line> {
    let lines = exit.log_of("panics").into_iter();
    let lines: Vec<_> = lines.filter(|line| line.text.contains(message)).collect();
    assert!(lines.iter().all(|line| line.level == "ERROR"), "{exit}");
    lines
}
