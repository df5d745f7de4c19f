//! What keeps one client from taking what the others need.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use host_tests::{Connection, Host, Setup, empty, full};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Version, body::Frame, http::request::Builder};
use tokio::time::timeout;

#[tokio::test]
async fn too_many_bytes_of_headers_are_431() {
    let setup = Setup::new().plugin("echo").arg("--max-header-bytes=8KiB");
    let host = setup.start().await;
    let of = |len| Request::get("/echo/x").header("x-long", "y".repeat(len));
    assert_eq!(statuses(&host, || of(4 << 10)).await, [200, 200]);
    assert_eq!(statuses(&host, || of(16 << 10)).await, [431, 431]);
}

#[tokio::test]
async fn too_many_headers_are_431() {
    let setup = Setup::new().plugin("echo").arg("--max-headers=20");
    let host = setup.start().await;
    let of = |count| {
        let request = Request::get("/echo/x").header("host", "x");
        (1..count).fold(request, |request, n| request.header(format!("x-{n}"), "y"))
    };
    assert_eq!(statuses(&host, || of(20)).await, [200, 200]);
    assert_eq!(statuses(&host, || of(21)).await, [431, 431]);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_413() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--max-body-size=1KiB")
        .start()
        .await;
    for mut connection in [host.http1().await, host.http2().await] {
        let of = |len: usize| {
            Request::post("/echo/len")
                .body(full(vec![b'x'; len]))
                .unwrap()
        };
        assert_eq!(connection.exchange(of(1024)).await.unwrap().text(), "1024");
        assert_eq!(connection.exchange(of(1025)).await.unwrap().status, 413);
    }
    assert_eq!(host.get("/echo/x").await.status, 200);
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_413() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--max-body-size=1KiB")
        .start()
        .await;
    for mut connection in [host.http1().await, host.http2().await] {
        let parts = std::iter::repeat_n(Bytes::from("x".repeat(100)), 20);
        let body = StreamBody::new(stream::iter(parts.map(|part| Ok(Frame::data(part)))));
        let request = Request::post("/echo/len")
            .body(body.boxed_unsync())
            .unwrap();
        assert_eq!(connection.exchange(request).await.unwrap().status, 413);
    }
}

#[tokio::test]
async fn without_a_limit_bodies_may_be_of_any_size() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--max-body-size=none")
        .start()
        .await;
    let request = Request::post("/echo/len")
        .body(full(vec![b'x'; 65 << 20]))
        .unwrap();
    assert_eq!(host.exchange(request).await.text(), (65 << 20).to_string());
}

#[tokio::test]
async fn connections_above_the_limit_wait_their_turn() {
    let host = Setup::new()
        .plugin("versioned")
        .arg("--max-connections=2")
        .start()
        .await;
    let (first, mut second) = (connected(&host).await, connected(&host).await);
    let mut third = host.http1().await;
    {
        let mut waiting = Box::pin(third.get("/versioned"));
        assert!(
            timeout(Duration::from_millis(300), &mut waiting)
                .await
                .is_err(),
            "the third did not wait"
        );
        assert_eq!(second.get("/versioned").await.status, 200);
        drop(first);
        assert_eq!(waiting.await.status, 200);
    }
}

/// How a request is answered in HTTP/1.1 and in HTTP/2.
async fn statuses(host: &Host, request: impl Fn() -> Builder) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (status, version) in statuses.iter_mut().zip([Version::HTTP_11, Version::HTTP_2]) {
        let request = request().body(empty()).unwrap();
        let reply = host.connect(version).await.exchange(request).await;
        *status = reply.unwrap().status.as_u16();
    }
    statuses
}

/// A connection that has served a request.
async fn connected(host: &Host) -> Connection {
    let mut connection = host.http1().await;
    assert_eq!(connection.get("/versioned").await.status, 200);
    connection
}
