//! Limits that keep one client from taking resources that the others need.

use std::{fs, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use host_tests::{Connection, Ctl, Frames, Host, Library, Setup, empty, eventually, full};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Version, body::Frame, http::request::Builder};
use rustix::process::Signal;
use tokio::time::timeout;

#[tokio::test]
async fn too_many_bytes_of_headers_are_431() {
    let setup = Setup::new().plugin("echo").arg("--max-header-bytes=8KiB");
    let host = setup.start().await;
    let request = |len| Request::get("/echo/x").header("x-long", "y".repeat(len));
    assert_eq!(statuses(&host, || request(4 << 10)).await, [200, 200]);
    assert_eq!(statuses(&host, || request(16 << 10)).await, [431, 431]);
}

#[tokio::test]
async fn too_many_headers_are_431() {
    let setup = Setup::new().plugin("echo").arg("--max-headers=20");
    let host = setup.start().await;
    let request_with = |count| {
        let request = Request::get("/echo/x").header("host", host.address().to_string());
        (1..count).fold(request, |request, n| request.header(format!("x-{n}"), "y"))
    };
    assert_eq!(statuses(&host, || request_with(20)).await, [200, 200]);
    assert_eq!(statuses(&host, || request_with(21)).await, [431, 431]);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_413() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--max-body-size=1KiB")
        .start()
        .await;
    for mut connection in [host.http1().await, host.http2().await] {
        let request = |len: usize| {
            Request::post("/echo/len")
                .body(full(vec![b'x'; len]))
                .unwrap()
        };
        let reply = connection.exchange(request(1024)).await.unwrap();
        assert_eq!(reply.text(), "1024");
        let reply = connection.exchange(request(1025)).await.unwrap();
        assert_eq!(reply.status, 413);
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
    let (first, mut second) = (
        connect_and_request(&host).await,
        connect_and_request(&host).await,
    );
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

#[tokio::test]
async fn one_connection_is_enough_for_two_addresses() {
    let setup = Setup::new().plugin("versioned").arg("--max-connections=1");
    let setup = setup.args(&["--bind=127.0.0.1:0", "--bind=127.0.0.1:0"]);
    let mut host = setup.start().await;
    let addresses = host.addresses(2).await.to_vec();
    for index in [0, 0, 1, 0, 1, 1] {
        let mut connection = Connection::http1(addresses[index]).await;
        assert_eq!(connection.get("/versioned").await.text(), "unmarked");
    }
}

#[tokio::test]
async fn many_streams_taken_back_at_once_leave_the_others_of_the_connection_alone() {
    let host = Setup::new().plugin("echo").start().await;
    let mut frames = host.frames(65_535).await;
    frames.get("/echo/ticks", &[1], false).await;
    frames.next_of(Frames::DATA, &[1]).await;
    // Open as many streams as the host allows beside the first stream (200 in all), and reset each of them at once.
    let streams: Vec<u32> = (3..401).step_by(2).collect();
    frames.get("/echo/pending", &streams, true).await;
    frames.get("/echo/x", &[401], false).await;
    loop {
        let frame = frames.next().await;
        assert_ne!(frame.kind, Frames::GOAWAY, "{frame:?}");
        if (frame.kind, frame.stream) == (Frames::HEADERS, 401) {
            break;
        }
    }
    frames.next_of(Frames::DATA, &[1]).await;
}

#[tokio::test]
async fn a_flood_of_streams_taken_back_ends_the_connection_and_names_the_client() {
    let host = Setup::new().plugin("echo").start().await;
    let mut frames = host.frames(65_535).await;
    let streams: Vec<u32> = (1..4000).step_by(2).collect();
    frames.get("/echo/pending", &streams, true).await;
    frames.next_of(Frames::GOAWAY, &[0]).await;
    let parts = ["WARN", "reset too many streams", "peer=127.0.0.1:"];
    host.log().eventually(&parts).await;
}

#[tokio::test]
async fn clients_leave_the_operator_some_file_descriptors() {
    let (ctl, logs) = (Ctl::new(), tempfile::tempdir().unwrap());
    let access = logs.path().join("access");
    let setup = Setup::new().library("libversioned.so", &Library::version("v1"));
    let setup = setup.arg(ctl.option()).arg("--access-log").arg(&access);
    let host = setup.start().await;
    // The host raises its limit of open files when it starts, so lower the limit after the start.
    host.serves("/versioned", "v1").await;
    host.limit_open_files(Some(128));
    let mut clients = Vec::new();
    for _ in 0..150 {
        let mut wire = host.wire().await;
        wire.send("GET /versioned HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        clients.push(wire);
    }
    let shortage = ["WARN", "Nearly out of file descriptors", "limit=128"];
    host.log().eventually(&shortage).await;

    let (code, plugins) = ctl.run(&["plugins"]).await;
    assert!(code == 0 && plugins.contains("versioned"), "{plugins}");
    host.folder()
        .put("libversioned.so", &Library::version("v2"));
    host.log().eventually(&["Loaded", "generation=2"]).await;
    fs::rename(&access, logs.path().join("access.1")).unwrap();
    host.signal(Signal::USR1);
    eventually("a new access log", async || access.exists().then_some(())).await;

    // A connection that waited is served after other connections have been closed.
    let mut last = clients.pop().unwrap();
    drop(clients);
    assert!(last.response().await.0.starts_with("HTTP/1.1 200 "));
    let recovered = ["INFO", "File descriptors are free again"];
    host.log().eventually(&recovered).await;
    host.limit_open_files(None);
    assert_eq!(host.get("/versioned").await.text(), "v2");
}

#[tokio::test]
async fn a_lack_of_file_descriptors_is_told_at_its_beginning_and_its_end() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("versioned").arg(ctl.option());
    let host = setup.start().await;
    host.serves("/versioned", "unmarked").await;
    // The host already has more open files than the new limit allows, so it cannot open any file.
    host.limit_open_files(Some(4));
    let mut client = host.http1().await;
    let reply = tokio::spawn(async move { client.get("/versioned").await.status });
    let asked = tokio::spawn(async move { ctl.run(&["plugins"]).await.0 });
    let begins = [
        "Cannot accept connections",
        "Cannot accept control connections",
    ];
    for line in begins {
        host.log().eventually(&["WARN", line, "os error 24"]).await;
    }
    // In this time the host makes several attempts to accept. Only the first failure is logged.
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.limit_open_files(None);
    assert_eq!(reply.await.unwrap(), 200);
    assert_eq!(asked.await.unwrap(), 0);
    for line in [
        "Accepting connections again",
        "Accepting control connections again",
    ] {
        host.log().eventually(&["INFO", line, "failures="]).await;
    }
    for line in begins {
        assert_eq!(host.log().with(&[line]).len(), 1);
    }
}

/// Sends the request over HTTP/1.1 and over HTTP/2, and returns the status of both responses.
async fn statuses(host: &Host, request: impl Fn() -> Builder) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (status, version) in statuses.iter_mut().zip([Version::HTTP_11, Version::HTTP_2]) {
        let request = request().body(empty()).unwrap();
        let reply = host.connect(version).await.exchange(request).await;
        *status = reply.unwrap().status.as_u16();
    }
    statuses
}

/// Opens a connection and exchanges one request, so that the host has accepted the connection.
async fn connect_and_request(host: &Host) -> Connection {
    let mut connection = host.http1().await;
    assert_eq!(connection.get("/versioned").await.status, 200);
    connection
}
