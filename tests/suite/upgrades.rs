//! Connections that an app takes over: WebSockets and other upgrades, tunnels, and how they end.

use std::time::Duration;

use futures_util::future::join_all;
use host_tests::{
    Host, Library, Setup, WebSocket, empty, eventually, upgrade, upgrade_http2, within,
};
use hyper::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

/// Starts a host with the fixture `gallery`.
async fn gallery() -> Host {
    Setup::new().plugin("gallery").start().await
}

#[tokio::test]
async fn a_websocket_echoes_on_both_versions_of_http() {
    let host = gallery().await;
    for mut socket in [
        WebSocket::http1(host.address(), "/ws/echo").await,
        WebSocket::http2(host.address(), "/ws/echo").await,
    ] {
        for text in ["one", "", "three \u{1f600}"] {
            socket.send(text).await;
            assert_eq!(socket.text().await, text);
        }
        let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
        for _ in 0..4 {
            socket.send(large.clone()).await;
            let echo = socket.next().await.unwrap().unwrap();
            assert!(echo.into_data() == large);
        }
        socket.close().await;
    }
    eventually("both are closed", async || {
        (host.log().with(&["socket is closed"]).len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_websocket_is_read_and_written_by_two_tasks() {
    let host = gallery().await;
    for (n, mut socket) in [
        WebSocket::http1(host.address(), "/ws/halves").await,
        WebSocket::http2(host.address(), "/ws/halves").await,
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..3 {
            assert_eq!(socket.text().await, "tick");
        }
        socket.send(format!("talk {n}")).await;
        host.log()
            .eventually(&["heard", &format!("talk {n}")])
            .await;
    }
}

#[tokio::test]
async fn a_websocket_works_below_a_mount() {
    let host = Setup::new()
        .plugin("gallery")
        .arg("--mount=/deep/down=gallery")
        .start()
        .await;
    for mut socket in [
        WebSocket::http1(host.address(), "/deep/down/ws/echo").await,
        WebSocket::http2(host.address(), "/deep/down/ws/echo").await,
    ] {
        socket.send("hello").await;
        assert_eq!(socket.text().await, "hello");
    }
}

#[tokio::test]
async fn a_thousand_websockets_are_open_at_once() {
    let host = gallery().await;
    let open = (0..1000).map(|_| WebSocket::http1(host.address(), "/ws/echo"));
    let mut sockets = join_all(open).await;
    for round in 0..2 {
        join_all(sockets.iter_mut().enumerate().map(async |(n, socket)| {
            socket.send(format!("{n} {round}")).await;
            assert_eq!(socket.text().await, format!("{n} {round}"));
        }))
        .await;
    }
    drop(sockets);
    eventually("the app sees them go", async || {
        (host.log().with(&["socket is closed"]).len() == 1000).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_that_come_with_an_upgrade_are_not_lost() {
    let host = gallery().await;
    let mut wire = host.wire().await;
    wire.send(
        "GET /shout HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\nearly",
    )
    .await;
    let head = wire.head().await.to_lowercase();
    assert!(
        head.starts_with("http/1.1 101 switching protocols\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nupgrade: shout\r\n"), "{head}");
    wire.until("EARLY").await;
    wire.send("late").await;
    wire.until("LATE").await;
    wire.stream().shutdown().await.unwrap();
    assert_eq!(wire.rest().await, "");
    host.log().eventually(&["shouted it all"]).await;
}

#[tokio::test]
async fn connect_opens_a_tunnel_on_both_versions_of_http() {
    let host = gallery().await;
    let connect = |target: &str| {
        Request::builder()
            .method(Method::CONNECT)
            .uri(target)
            .body(empty())
            .unwrap()
    };
    for (response, tunnel) in [
        upgrade(host.address(), connect("example.org:7")).await,
        upgrade_http2(host.address(), connect("example.org:7")).await,
    ] {
        assert_eq!(response.status(), 200);
        let mut tunnel = tunnel.unwrap();
        tunnel.write_all(b"through").await.unwrap();
        let mut heard = [0; 7];
        within("an answer", tunnel.read_exact(&mut heard))
            .await
            .unwrap();
        assert_eq!(&heard, b"THROUGH");
    }
    for (response, tunnel) in [
        upgrade(host.address(), connect("example.org:1")).await,
        upgrade_http2(host.address(), connect("example.org:1")).await,
    ] {
        assert_eq!(response.status(), 403);
        assert!(tunnel.is_none());
    }
}

#[tokio::test]
async fn an_upgrade_that_the_app_refuses_leaves_the_connection_as_it_was() {
    let host = gallery().await;
    let mut wire = host.wire().await;
    for _ in 0..2 {
        wire.send("GET /ws/echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n\r\n").await;
        let (head, _) = wire.response().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        wire.send("GET /body HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
            .await;
        assert!(wire.response().await.0.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_connection_that_was_taken_over_is_not_idle() {
    let host = Setup::new()
        .plugin("gallery")
        .arg("--keep-alive=100ms")
        .start()
        .await;
    for mut socket in [
        WebSocket::http1(host.address(), "/ws/echo").await,
        WebSocket::http2(host.address(), "/ws/echo").await,
    ] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        socket.send("still there").await;
        assert_eq!(socket.text().await, "still there");
    }
}

#[tokio::test]
async fn a_connection_that_was_taken_over_is_one_of_those_that_may_be_open() {
    let host = Setup::new()
        .plugin("gallery")
        .arg("--max-connections=1")
        .start()
        .await;
    let mut socket = WebSocket::http1(host.address(), "/ws/echo").await;
    let mut other = host.wire().await;
    other.send("GET /body HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(300), other.head()).await;
    assert!(early.is_err(), "{early:?}");
    socket.send("still there").await;
    assert_eq!(socket.text().await, "still there");
    socket.close().await;
    let (head, _) = other.response().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn a_socket_stays_with_the_generation_that_it_began_on_until_that_is_drained() {
    let host = Setup::new()
        .plugin("gallery")
        .arg("--graceful-timeout=1s")
        .start()
        .await;
    for (round, is_http2) in [false, true].into_iter().enumerate() {
        let mut socket = if is_http2 {
            WebSocket::http2(host.address(), "/ws/echo").await
        } else {
            WebSocket::http1(host.address(), "/ws/echo").await
        };
        let next = Library::plugin("gallery").with_fact("version", &format!("0.1.{}", round + 5));
        host.folder().put("libgallery.so", &next);
        host.log()
            .eventually(&["Loaded", &format!("generation={}", round + 2)])
            .await;
        socket.send("old").await;
        assert_eq!(socket.text().await, "old");
        // When the drain ends, the host aborts the connection.
        let ended = socket.next().await;
        assert!(
            !matches!(ended, Ok(Some(Message::Text(_) | Message::Binary(_)))),
            "{ended:?}"
        );
        host.log()
            .eventually(&[
                "Cutting off requests",
                &format!("generation={}", round + 1),
                "in_flight=1",
            ])
            .await;
        host.log()
            .eventually(&["Stopped", &format!("generation={}", round + 1)])
            .await;
    }
}

#[tokio::test]
async fn a_host_that_stops_cuts_sockets_off_when_its_patience_ends() {
    let host = Setup::new()
        .plugin("gallery")
        .arg("--graceful-timeout=300ms")
        .start()
        .await;
    let _http1 = WebSocket::http1(host.address(), "/ws/echo").await;
    let _http2 = WebSocket::http2(host.address(), "/ws/echo").await;
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    assert_eq!(
        exit.stderr
            .iter()
            .filter(|line| line.contains("socket is closed"))
            .count(),
        2,
        "{exit}"
    );
}
