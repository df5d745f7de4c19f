//! Time limits on clients that send or read too slowly: `--header-timeout`, `--body-timeout` and `--keep-alive`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use host_tests::{Frames, Setup, within};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Version, body::Frame};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{sleep, timeout},
};

#[tokio::test]
async fn what_may_become_http2_is_408_as_well() {
    let setup = Setup::new().arg("--header-timeout=200ms");
    let host = setup.start().await;
    for part in ["P", "PRI * HTT"] {
        let mut wire = host.wire().await;
        wire.send(part).await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{part:?}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_first_byte_of_a_head_is_where_its_time_begins() {
    let setup = Setup::new().arg("--header-timeout=1s");
    let host = setup.start().await;
    let mut wire = host.wire().await;
    let began = Instant::now();
    // The first byte may also begin the preface of HTTP/2. Only the second byte shows that the connection is HTTP/1.
    wire.send("P").await;
    sleep(Duration::from_millis(700)).await;
    wire.send("OST / HTTP/1.1\r\nHost:").await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1600), "it took {took:?}");
}

#[tokio::test]
async fn what_may_become_http2_does_not_hold_up_the_stop() {
    let setup = Setup::new().arg("--header-timeout=1h");
    let host = setup.arg("--graceful-timeout=1h").start().await;
    let mut wire = host.wire().await;
    wire.send("P").await;
    // The host accepts connections in order, so after this response the first connection is accepted too.
    assert_eq!(host.get("/").await.status, 404);
    assert_eq!(host.stop().await.code, Some(0));
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_silent_http2_client_has_to_go() {
    let setup = Setup::new().arg("--keep-alive=200ms");
    let host = setup.start().await;
    let mut wire = host.wire().await;
    // Send the preface and empty settings (RFC 9113, section 3.4), and acknowledge nothing.
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let bytes = wire.rest_bytes().await;
    // Read the length and the type of each frame (RFC 9113, section 4.1).
    let (mut types, mut rest) = (Vec::new(), &*bytes);
    while let [a, b, c, kind, _, _, _, _, _, frame @ ..] = rest {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        types.push(*kind);
        rest = frame.get(len..).unwrap_or_default();
    }
    let (settings, goaway) = (4, 7);
    assert_eq!(types.first(), Some(&settings), "{bytes:?}");
    assert!(types.contains(&goaway), "{bytes:?}");
}

#[tokio::test]
async fn slow_headers_are_408_and_the_end_of_the_connection() {
    let host = Setup::new()
        .plugin("versioned")
        .arg("--header-timeout=200ms")
        .start()
        .await;
    // The limit holds for the first request of a connection and for later ones.
    for before in ["", "GET /versioned HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut wire = host.wire().await;
        if !before.is_empty() {
            wire.send(before).await;
            wire.response().await;
        }
        wire.send("GET /versioned HTTP/1.1\r\nHost:").await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn slow_headers_behind_another_request_are_408() {
    let setup = Setup::new().plugin("echo");
    let host = setup.arg("--header-timeout=300ms").start().await;
    for before in REQUESTS {
        let mut wire = host.wire().await;
        wire.send(format!("{before}GET / HT")).await;
        assert!(wire.response().await.0.starts_with("HTTP/1.1 200 "));
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "behind {before:?}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_time_for_headers_does_not_begin_with_the_end_of_a_request() {
    let setup = Setup::new().plugin("echo");
    let host = setup.arg("--header-timeout=100ms").start().await;
    for request in REQUESTS {
        let mut wire = host.wire().await;
        for parts in [vec![request], request.split_inclusive("\r\n\r\n").collect()] {
            for part in parts {
                wire.send(part).await;
            }
            assert!(wire.response().await.0.starts_with("HTTP/1.1 200 "));
            sleep(Duration::from_millis(300)).await;
        }
    }
}

/// Requests without a body, with a body of a known length, and with a chunked body. The app reads the bodies.
const REQUESTS: [&str; 3] = [
    "GET /echo/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /echo/len HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
    "POST /echo/len HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
];

#[tokio::test]
async fn headers_that_trickle_in_are_408_too() {
    let host = Setup::new()
        .plugin("versioned")
        .arg("--header-timeout=300ms")
        .start()
        .await;
    let mut wire = host.wire().await;
    wire.send("GET /versioned HTTP/1.1\r\n").await;
    let trickle = async {
        let pause = Duration::from_millis(50);
        // The stream becomes readable when the server has answered.
        while timeout(pause, wire.stream().readable()).await.is_err() {
            wire.send("x: y\r\n").await;
        }
    };
    within("the end of a request that trickles in", trickle).await;
    let answer = wire.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_time_for_headers_does_not_count_between_requests_or_in_a_body() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--header-timeout=100ms")
        .start()
        .await;
    let mut wire = host.wire().await;
    for _ in 0..2 {
        wire.send("POST /echo/len HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
            .await;
        sleep(Duration::from_millis(300)).await;
        wire.send("cd").await;
        assert_eq!(wire.response().await.1, "4");
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let setup = Setup::new().plugin("versioned").arg("--keep-alive=500ms");
    let host = setup.start().await;
    let closes = async |version| {
        let mut connection = host.connect(version).await;
        assert_eq!(connection.get("/versioned").await.status, 200);
        connection.closed().await;
    };
    let mut unused = host.wire().await;
    let (.., rest) = tokio::join!(
        closes(Version::HTTP_11),
        closes(Version::HTTP_2),
        unused.rest()
    );
    assert_eq!(rest, "");
}

#[tokio::test]
async fn a_connection_with_a_request_on_it_is_not_idle() {
    let setup = Setup::new().plugin("versioned").arg("--keep-alive=500ms");
    let host = setup.start().await;
    let file = host.folder().join("go");
    let stays = async |version, path| {
        let mut connection = host.connect(version).await;
        let path = format!("/versioned/{path}?{}", file.display());
        let text = connection.get(&path).await.text();
        assert!(text.ends_with("unmarked"), "{text:?}");
    };
    let signal_later = async {
        sleep(Duration::from_millis(1200)).await;
        host.folder().create_empty("go");
    };
    tokio::join!(
        stays(Version::HTTP_11, "wait"),
        stays(Version::HTTP_11, "stream"),
        stays(Version::HTTP_2, "wait"),
        stays(Version::HTTP_2, "stream"),
        signal_later,
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let setup = Setup::new().plugin("echo").arg("--access-log=-");
    let host = setup.arg("--body-timeout=300ms").start().await;

    let mut wire = host.wire().await;
    wire.send("POST /echo/len?1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        .await;
    let answer = wire.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{answer:?}"
    );
    host.stdout().eventually(&["/echo/len?1", " 408 "]).await;
    // The log line names the option that ended the request.
    let parts = ["INFO", "--body-timeout", "300ms", "in request{id="];
    host.log().eventually(&parts).await;

    let mut connection = host.http2().await;
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"ab")))]);
    let body = StreamBody::new(first.chain(stream::pending())).boxed_unsync();
    let request = Request::post("/echo/len").body(body).unwrap();
    let response = within("an answer", connection.send(request)).await.unwrap();
    assert_eq!(response.status(), 408);
    // The connection still serves other streams.
    assert_eq!(connection.get("/echo/x").await.status, 200);
}

#[tokio::test]
async fn an_app_that_answers_waits_for_the_rest_as_long_as_it_likes() {
    let setup = Setup::new().plugin("echo").arg("--body-timeout=100ms");
    let host = setup.start().await;
    for mut connection in [host.http1().await, host.http2().await] {
        let (sender, mut parts) = mpsc::unbounded_channel::<Bytes>();
        let next = stream::poll_fn(move |context| {
            let part = parts.poll_recv(context);
            part.map(|part| Some(Ok(Frame::data(part?))))
        });
        let body = StreamBody::new(next).boxed_unsync();
        let request = Request::post("/echo/body").body(body).unwrap();
        let response = within("a head", connection.send(request)).await.unwrap();
        sleep(Duration::from_millis(400)).await;
        sender.send("late".into()).unwrap();
        drop(sender);
        let rest = within("the end", response.into_body().collect()).await;
        assert_eq!(rest.unwrap().to_bytes(), "late");
    }
}

#[tokio::test]
async fn who_takes_nothing_of_a_response_has_to_go() {
    let setup = Setup::new().plugin("echo").arg("--log-level=debug");
    let host = setup.arg("--body-timeout=300ms").start().await;
    // The first response is an endless stream, of which the app produces more only as the client reads. The second
    // response is a body that the host already holds completely.
    let mut stream = host.wire().await;
    stream
        .send("GET /echo/bulk HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let mut whole = host.wire().await;
    whole
        .send("GET /echo/whole HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    whole.head().await;
    host.log().eventually(&["bulk is dropped"]).await;
    let cut_off = ["Connection failed", "its client took nothing of a response"];
    host.log().nth_with(1, &cut_off).await;
    // The client can still read the bytes in the buffers of the system, but not the rest.
    stream.rest_bytes().await;
    let rest = whole.rest_bytes().await;
    assert!(rest.len() < 32 << 20, "all of it came");
}

#[tokio::test]
async fn who_takes_nothing_of_an_http2_stream_loses_that_stream() {
    let setup = Setup::new().plugin("echo").arg("--access-log=-");
    let host = setup.arg("--body-timeout=300ms").start().await;
    let mut frames = host.frames(0).await;
    // An endless stream of the app, a body that the host already holds completely, and a 404 of the host itself.
    for (stream, path) in [(1, "/echo/bulk"), (3, "/echo/whole"), (5, "/nothing")] {
        frames.get(path, &[stream], false).await;
    }
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let frame = frames.next_of(Frames::RST_STREAM, &[1, 3, 5]).await;
        reset.push(frame.stream);
    }
    reset.sort();
    assert_eq!(reset, [1, 3, 5]);
    host.log().eventually(&["bulk is dropped"]).await;
    for path in ["/echo/bulk", "/echo/whole"] {
        host.stdout().eventually(&[path, " timed_out "]).await;
    }
    // The connection still serves other streams.
    frames.get("/echo/len", &[7], false).await;
    frames.next_of(Frames::HEADERS, &[7]).await;
}

#[tokio::test]
async fn who_takes_an_http2_stream_bit_by_bit_stays() {
    let setup = Setup::new().plugin("echo").arg("--body-timeout=500ms");
    let host = setup.start().await;
    let mut frames = host.frames(0).await;
    // The client enlarges the stream's window in small steps, and each step comes within the time limit.
    for (stream, path) in [(1, "/echo/bulk"), (3, "/echo/whole")] {
        frames.get(path, &[stream], false).await;
        for _ in 0..10 {
            frames.grow_windows(stream, 16 << 10).await;
            let mut len = 0;
            while len < 16 << 10 {
                let data = frames.next_of(Frames::DATA, &[stream]).await;
                len += data.payload.len();
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_head_behind_a_response_that_is_not_taken_has_time() {
    let setup = Setup::new().plugin("echo").arg("--header-timeout=100ms");
    let host = setup.start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/whole HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        .await;
    wire.head().await;
    sleep(Duration::from_millis(400)).await;
    let rest = wire.rest_bytes().await;
    let answer = String::from_utf8_lossy(&rest[32 << 20..]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
}

#[tokio::test]
async fn who_takes_a_response_slowly_gets_all_of_it() {
    let setup = Setup::new().plugin("echo");
    let host = setup.arg("--keep-alive=100ms").start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/whole HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wire.head().await;
    // The app has produced the whole response, and the server waits only until the client reads. A connection in this
    // state is not idle, so `--keep-alive` must not close it.
    sleep(Duration::from_millis(600)).await;
    let rest = wire.rest_bytes().await;
    assert_eq!(rest.len(), 32 << 20);
}

#[tokio::test]
async fn who_takes_a_stream_bit_by_bit_stays() {
    let setup = Setup::new().plugin("echo").arg("--body-timeout=500ms");
    let host = setup.start().await;
    let mut wire = host.wire().await;
    wire.send("GET /echo/bulk HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let mut bytes = vec![0; 2 << 20];
    // The whole transfer takes longer than the limit, but the client never pauses for that long.
    for _ in 0..12 {
        let read = wire.stream().read_exact(&mut bytes);
        within("more of a stream", read).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}
