//! Bodies as streams: the host forwards each part when it arrives, and no faster than the other side reads. A stream
//! ends when its sender ends it, or when the client disconnects.

use std::{task::Context, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use host_tests::{Host, Setup, empty, eventually, full, within};
use http_body_util::{BodyExt, StreamBody};
use hyper::{HeaderMap, Request, body::Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

#[tokio::test]
async fn a_response_arrives_while_it_is_made() {
    let host = Setup::new().plugin("versioned").start().await;
    let path = format!("/versioned/stream?{}", host.folder().join("go").display());
    for mut connection in [host.http1().await, host.http2().await] {
        let response = connection
            .send(Request::get(&path).body(empty()).unwrap())
            .await
            .unwrap();
        let mut body = response.into_body();
        let mut first = Vec::new();
        while first != b"unmarked+" {
            let frame = within("a frame", body.frame()).await.unwrap().unwrap();
            first.extend(frame.into_data().unwrap());
        }
        host.folder().create_empty("go");
        assert_eq!(
            within("the rest", body.collect()).await.unwrap().to_bytes(),
            "unmarked"
        );
        host.folder().remove("go");
    }
}

#[tokio::test]
async fn request_and_response_flow_at_the_same_time() {
    let host = Setup::new().plugin("echo").start().await;
    for mut connection in [host.http1().await, host.http2().await] {
        let (sender, mut parts) = mpsc::unbounded_channel::<Bytes>();
        let next = move |context: &mut Context<'_>| {
            parts
                .poll_recv(context)
                .map(|part| Some(Ok(Frame::data(part?))))
        };
        let body = StreamBody::new(stream::poll_fn(next));
        let request = Request::post("/echo/body")
            .body(body.boxed_unsync())
            .unwrap();
        let mut response = connection.send(request).await.unwrap().into_body();
        for part in ["one", "two", "three"] {
            sender.send(part.into()).unwrap();
            let frame = within("an echo", response.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), part);
        }
        drop(sender);
        let rest = within("the end", response.collect()).await.unwrap();
        assert_eq!(rest.to_bytes(), "");
    }
}

#[tokio::test]
async fn a_large_body_comes_back_as_it_went() {
    let host = Setup::new().plugin("echo").start().await;
    let large: Bytes = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
    for mut connection in [host.http1().await, host.http2().await] {
        let request = Request::post("/echo/body")
            .body(full(large.clone()))
            .unwrap();
        let reply = connection.exchange(request).await.unwrap();
        assert!(reply.body == large, "{} bytes came back", reply.body.len());
    }
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let host = Setup::new().plugin("echo").start().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    let frames = [
        Frame::data(Bytes::from("text")),
        Frame::trailers(trailers.clone()),
    ];
    let body = StreamBody::new(stream::iter(frames.map(Ok)));
    let request = Request::post("/echo/body")
        .body(body.boxed_unsync())
        .unwrap();
    let response = host.http2().await.send(request).await.unwrap();
    let body = within("the response", response.into_body().collect())
        .await
        .unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "text");
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_the_app_back() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/bulk HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let held = wait_until_stalled(|| bytes_given(&host)).await;
    assert!(
        held < 32 << 20,
        "{held} bytes were given to a client that reads nothing"
    );
    let mut buffer = vec![0; 1 << 20];
    eventually("more is given when the client reads", async || {
        let read = wire.stream().read(&mut buffer);
        within("the host sends", read).await.unwrap();
        (bytes_given(&host).await > held).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_app_that_reads_slowly_holds_the_client_back() {
    const LEN: usize = 48 << 20;
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    let file = host.folder().join("go");
    let head = format!(
        "POST /echo/hold?{} HTTP/1.1\r\nHost: x\r\nContent-Length: {LEN}\r\n\r\n",
        file.display()
    );
    wire.send(head).await;
    host.log().eventually(&["body is held"]).await;

    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    // The app does not read the body yet, so writing stops when all buffers are full.
    while let Ok(written) = timeout(STALL, wire.stream().write(&chunk)).await {
        sent += written.unwrap();
        assert!(
            sent < LEN,
            "the host took all of a body that the app does not read"
        );
    }
    host.folder().create_empty("go");
    while sent < LEN {
        let rest = &chunk[..chunk.len().min(LEN - sent)];
        sent += within("the app reads", wire.stream().write(rest))
            .await
            .unwrap();
    }
    assert_eq!(wire.response().await.1, LEN.to_string());
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_handler() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/pending HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["pending is called"]).await;
    drop(wire);
    host.log().eventually(&["pending is dropped"]).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wire.until("tick 3\n").await;
    drop(wire);
    host.log().eventually(&["ticks is dropped"]).await;
}

#[tokio::test]
async fn a_request_taken_back_ends_alone_on_its_http_2_connection() {
    let host = Setup::new().plugin("echo").start().await;
    let mut http2 = host.http2().await;
    let response = http2
        .send(Request::get("/echo/ticks").body(empty()).unwrap())
        .await
        .unwrap();
    let mut body = response.into_body();
    within("a tick", body.frame()).await.unwrap().unwrap();
    drop(body);
    host.log().eventually(&["ticks is dropped"]).await;
    assert_eq!(http2.get("/echo/x").await.status, 200);
}

/// The time without progress after which a test takes a stream for stopped.
const STALL: Duration = Duration::from_millis(300);

/// Returns the number of bytes that the app has produced for its endless streams.
async fn bytes_given(host: &Host) -> usize {
    host.get("/echo/bulk/given").await.text().parse().unwrap()
}

/// Waits until the value is above zero and no longer changes, and returns it.
async fn wait_until_stalled<F: Future<Output = usize>>(value: impl Fn() -> F) -> usize {
    eventually("it stands still", async || {
        let before = value().await;
        tokio::time::sleep(STALL).await;
        (before > 0 && value().await == before).then_some(before)
    })
    .await
}
