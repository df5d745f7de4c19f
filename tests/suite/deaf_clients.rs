//! Clients that do not read a response. Such a client does not keep a retired generation alive.

use std::time::Duration;

use host_tests::{Frames, Host, Setup};
use tokio::time::Instant;

const FILE: &str = "libecho.so";

#[tokio::test]
async fn a_generation_ends_though_its_client_takes_nothing_over_http1() {
    let host = start().await;
    let mut clients = Vec::new();
    // One client requests a stream. The other client first requests a body that fills the buffers of the connection, so
    // nothing of its stream can be sent.
    for before in ["", "GET /echo/whole HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut wire = host.wire().await;
        wire.send(format!(
            "{before}GET /echo/bulk HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
        wire.head().await;
        clients.push(wire);
    }
    assert_generation_ends(&host).await;
}

#[tokio::test]
async fn a_generation_ends_though_its_client_takes_nothing_over_http2() {
    let host = start().await;
    let mut frames = host.frames(0).await;
    for (stream, path) in [(1, "/echo/bulk"), (3, "/echo/whole")] {
        frames.get(path, &[stream], false).await;
        frames.next_of(Frames::HEADERS, &[stream]).await;
    }
    assert_generation_ends(&host).await;
    let mut reset = [0; 2];
    for stream in &mut reset {
        *stream = frames.next_of(Frames::RST_STREAM, &[1, 3]).await.stream;
    }
    reset.sort();
    assert_eq!(reset, [1, 3]);
    // The connection still serves other streams.
    frames.get("/echo/bulk", &[5], false).await;
    frames.next_of(Frames::HEADERS, &[5]).await;
}

/// Starts a host with the fixture `echo` and a short graceful timeout.
async fn start() -> Host {
    let setup = Setup::new().plugin("echo").arg("--access-log=-");
    setup.arg("--graceful-timeout=300ms").start().await
}

/// Removes the plugin, and asserts that the host aborts its requests and stops its generation.
async fn assert_generation_ends(host: &Host) {
    host.folder().remove(FILE);
    let began = Instant::now();
    host.log()
        .eventually(&["WARN", "Cutting off requests"])
        .await;
    host.log()
        .eventually(&["INFO", "Stopped", "generation=1"])
        .await;
    let took = began.elapsed();
    assert_eq!(host.log().with(&["stuck"]), [""; 0], "after {took:?}");
    host.stdout().eventually(&["/echo/bulk", " cut_off "]).await;
    assert!(
        took < Duration::from_secs(30),
        "it waited for another limit: {took:?}"
    );
}
