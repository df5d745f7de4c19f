//! The example plugin `chat`.

use host_tests::{Library, Setup, WebSocket};
use rustix::process::Signal;

#[tokio::test]
async fn what_one_says_all_hear() {
    let host = Setup::new().plugin("chat").start().await;
    let page = host.get("/chat").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("new WebSocket("));

    let mut listener = host.wire().await;
    listener
        .send("GET /chat/events HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(listener.head().await.contains("text/event-stream"));
    let mut one = WebSocket::http1(host.address(), "/chat/socket").await;
    let mut two = WebSocket::http2(host.address(), "/chat/socket").await;
    // The heads of the three responses may arrive before the app has subscribed all clients, so wait for the app's
    // lines.
    for count in ["here=2", "here=3"] {
        let line = host.log().eventually(&["Somebody came", count]).await;
        assert!(line.contains(" in request{id="), "{line}");
    }
    one.send("hello").await;
    assert_eq!(one.text().await, "hello");
    assert_eq!(two.text().await, "hello");
    two.send("hello yourself").await;
    assert_eq!(one.text().await, "hello yourself");
    listener.until("data: hello\n\n").await;
    listener.until("data: hello yourself\n\n").await;

    one.close().await;
    drop(two);
    host.log().eventually(&["Somebody left", "here=1"]).await;
}

#[tokio::test]
async fn everybody_is_asked_to_come_back_when_there_is_a_new_version_or_the_end() {
    let host = Setup::new().plugin("chat").start().await;
    for generation in [1, 2] {
        let mut listener = host.wire().await;
        listener
            .send("GET /chat/events HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        listener.head().await;
        let one = WebSocket::http1(host.address(), "/chat/socket").await;
        let two = WebSocket::http2(host.address(), "/chat/socket").await;
        let here = format!("chat#{generation}");
        host.log().eventually(&[&*here, "here=3"]).await;
        if generation == 1 {
            let next = Library::plugin("chat").with_fact("version", "0.2.0");
            host.folder().put("libchat.so", &next);
        } else {
            host.signal(Signal::TERM);
        }
        let restart = 1012;
        assert_eq!(one.closed().await, restart);
        assert_eq!(two.closed().await, restart);
        listener.until("0\r\n\r\n").await;
        let stopped = format!("generation={generation}");
        host.log().eventually(&["Stopped", &*stopped]).await;
    }
    let exit = host.exit().await;
    assert!(!exit.to_string().contains("Cutting off"), "{exit}");
}
