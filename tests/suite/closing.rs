//! Connections that the server closes while the client still sends, and connections that the client closes.

use std::time::{Duration, Instant};

use host_tests::{Setup, eventually, within};
use tokio::{io::AsyncWriteExt, time::sleep};

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_reads_after_it_has_sent_all() {
    let setup = Setup::new().plugin("echo").arg("--max-body-size=100KiB");
    let host = setup.start().await;
    let length = "Content-Length: 1000000\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    // The body is too large by its `Content-Length`, is too large when all of it is counted, or is not read by the app.
    for (path, header, status) in [
        ("/echo/len", length, "413"),
        ("/echo/len", chunked, "413"),
        ("/echo/x", "Content-Length: 1000\r\n", "200"),
        ("/echo/x", chunked, "200"),
    ] {
        let mut wire = host.wire().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        wire.send(head).await;
        if status == "413" && header == chunked {
            wire.send(chunk(200_000)).await;
        }
        within("an answer", wire.stream().readable()).await.unwrap();
        // Sends more of the body after the response: a server that had closed the socket would reset the connection,
        // and the client would lose the response.
        sleep(Duration::from_millis(50)).await;
        for _ in 0..5 {
            wire.send(chunk(100)).await;
            sleep(Duration::from_millis(20)).await;
        }
        let answer = wire.rest().await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{path} {header}: {answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_on_sending_does_not_hold_up_the_stop() {
    let setup = Setup::new().plugin("echo").arg("--max-body-size=1KiB");
    let host = setup.arg("--graceful-timeout=1h").start().await;
    let mut wire = host.wire().await;
    wire.send("POST /echo/len HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    wire.head().await;
    let sending = tokio::spawn(async move { while wire.stream().write_all(b"x").await.is_ok() {} });
    let began = Instant::now();
    assert_eq!(host.stop().await.code, Some(0));
    // A server that does not stop would read and discard the client's bytes for 30 seconds.
    assert!(began.elapsed() < Duration::from_secs(20));
    within("the end of the connection", sending).await.unwrap();
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_is_answered() {
    let setup = Setup::new().plugin("versioned").plugin("echo");
    let host = setup.arg("--access-log=-").start().await;
    let file = host.folder().join("go").display().to_string();
    let of = |path: &str, version: &str| format!("GET /{path} HTTP/{version}\r\nHost: x\r\n\r\n");
    let (wait, stream) = (
        format!("versioned/wait?{file}"),
        format!("versioned/stream?{file}"),
    );
    // Responses that wait for the file, streams that wait for the file, and a pipelined request behind a waiting
    // response.
    let mut clients = Vec::new();
    for (request, end) in [
        (of(&wait, "1.1"), "unmarked"),
        (of(&wait, "1.0"), "unmarked"),
        (of(&stream, "1.1"), "8\r\nunmarked\r\n0\r\n\r\n"),
        (of(&stream, "1.0"), "unmarked+unmarked"),
        (of(&wait, "1.1") + &of("versioned", "1.1"), "unmarked"),
    ] {
        let mut wire = host.wire().await;
        wire.send(&request).await;
        wire.stream().shutdown().await.unwrap();
        clients.push((wire, request, end));
    }
    eventually("all wait", async || {
        (host.log().with(&["waits"]).len() == 3).then_some(())
    })
    .await;
    // Gives the server time to read the end of the client's sending side before the app answers.
    sleep(Duration::from_millis(100)).await;
    host.folder().create_empty("go");
    for (mut wire, request, end) in clients {
        let answer = wire.rest().await;
        assert!(answer.ends_with(end), "{request:?}: {answer:?}");
        let count =
            answer.matches("HTTP/1.1 200 ").count() + answer.matches("HTTP/1.0 200 ").count();
        assert_eq!(count, request.matches("GET").count(), "{answer:?}");
    }
    host.stdout().nth(5).await;
    assert_eq!(host.stdout().with(&["client_gone"]), [""; 0]);
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_gets_a_stream_as_long_as_it_moves() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wire.stream().shutdown().await.unwrap();
    // The stream lasts longer than the time after which the server would end a stream that makes no progress.
    for second in 1..=3 {
        sleep(Duration::from_secs(1)).await;
        wire.until("tick ").await;
        assert_eq!(
            host.log().with(&["ticks is dropped"]),
            [""; 0],
            "after {second} s"
        );
    }
}

/// Returns a chunk of a chunked body, with `len` bytes of data.
fn chunk(len: usize) -> String {
    format!("{len:x}\r\n{}\r\n", "x".repeat(len))
}
