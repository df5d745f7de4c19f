//! Native handlers, which read a request in the form in which it crosses the ABI.

use host_tests::{Host, Setup, empty, full};
use hyper::{Request, Version};

/// Starts a host with the fixture `native`.
async fn native() -> Host {
    Setup::new().plugin("native").start().await
}

#[tokio::test]
async fn a_handler_sees_the_whole_request() {
    let host = native().await;
    for (version, names) in [
        (
            Version::HTTP_11,
            r#"["user-agent", "x-unusual", "x-request-id", "host"]"#,
        ),
        (
            Version::HTTP_2,
            r#"["user-agent", "x-unusual", "x-request-id"]"#,
        ),
    ] {
        let mut connection = host.connect(version).await;
        let request = Request::get("/native/a/b?c=d")
            .header("user-agent", "curl")
            .header("x-unusual", "seen")
            .header("x-request-id", "7f");
        let reply = connection.exchange(request.body(empty()).unwrap()).await;
        let reply = reply.unwrap();
        assert_eq!(reply.status, 202);
        assert_eq!(
            reply.text(),
            format!(
                "GET /a/b Some(\"c=d\") /native/a/b?c=d /native {version:?} true 7f curl seen {names}"
            )
        );
        let unusual: Vec<_> = reply.headers.get_all("x-unusual").iter().collect();
        assert_eq!(unusual, ["one", "two"]);
    }
}

#[tokio::test]
async fn a_handler_may_wait_and_read_and_stream() {
    let host = native().await;
    for (path, sent, expected) in [
        ("/native/echo", "sent", "sent"),
        ("/native/slow", "", "slept"),
        ("/native/stream", "", "one two three"),
        ("/native/axum", "to axum", "to axum"),
    ] {
        let request = Request::post(path).body(full(sent)).unwrap();
        let reply = host.exchange(request).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (200, expected.into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_error_and_a_panic_end_one_request() {
    let host = native().await;
    let mut connection = host.http1().await;
    for (path, line) in [
        ("/native/error", "The app returned an error"),
        ("/native/panic", "as asked"),
    ] {
        assert_eq!(connection.get(path).await.status, 500);
        host.log().eventually(&["ERROR", line]).await;
    }
    assert_eq!(connection.get("/native/slow").await.text(), "slept");
}
