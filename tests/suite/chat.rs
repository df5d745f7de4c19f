//! The example plugin `chat`.

use host_tests::{Setup, WebSocket};

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
    // An answer to a request comes before somebody is there to listen.
    for count in ["here=2", "here=3"] {
        host.log().eventually(&["Somebody came", count]).await;
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
