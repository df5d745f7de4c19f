//! The rules of HTTP/1.1 and HTTP/2: kept connections, pipelining, `HEAD`, `100-continue`, framing of bodies, and
//! malformed requests.

use host_tests::{Setup, empty, full};
use hyper::{Method, Request, Version};

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let host = Setup::new().plugin("versioned").start().await;
    let mut wire = host.wire().await;
    for _ in 0..3 {
        wire.send("GET /versioned HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let (head, body) = wire.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("connection: close"), "{head}");
        assert_eq!(body, "unmarked");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    let requests: String = (0..20)
        .map(|n| format!("GET /echo/{n} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    wire.send(requests).await;
    for n in 0..20 {
        let (_, body) = wire.response().await;
        assert!(body.contains(&format!(r#""uri":"/{n}""#)), "{n}: {body}");
    }
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_obeyed() {
    let host = Setup::new().plugin("versioned").start().await;
    for request in [
        "GET /versioned HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /versioned HTTP/1.0\r\n\r\n",
    ] {
        let mut wire = host.wire().await;
        wire.send(request).await;
        assert!(wire.rest().await.ends_with("\r\n\r\nunmarked"));
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let host = Setup::new().plugin("versioned").start().await;
    let mut wire = host.wire().await;
    wire.send(
        "HEAD /versioned HTTP/1.1\r\nHost: x\r\n\r\nGET /versioned HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.to_lowercase().contains("content-length: 8\r\n"),
        "{head}"
    );
    // The bytes behind the head belong to the next response, because the response to `HEAD` has no body.
    let (_, body) = wire.response().await;
    assert_eq!(body, "unmarked");

    let mut http2 = host.http2().await;
    let head = |path| Request::head(path).body(empty()).unwrap();
    let reply = http2.exchange(head("/versioned")).await.unwrap();
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.header("content-length"),
            &*reply.text()
        ),
        (200, "8", "")
    );
    let reply = http2.exchange(head("/nowhere")).await.unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.text()), (404, ""));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_the_app_reads() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send(
        "POST /echo/len HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("hello").await;
    let (head, body) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, "5");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_spared_a_body_that_nobody_reads() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--max-body-size=10")
        .start()
        .await;
    for (path, len, status) in [("/nowhere", 5, "404"), ("/echo/len", 11, "413")] {
        let mut wire = host.wire().await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\nExpect: 100-continue\r\n\r\n"
        );
        wire.send(request).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[tokio::test]
async fn bodies_with_a_length_and_chunked_ones_reach_the_app() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("POST /echo/len HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!(wire.response().await.1, "5");
    wire.send("POST /echo/len HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        .await;
    assert_eq!(wire.response().await.1, "7");
}

#[tokio::test]
async fn a_malformed_request_is_400_and_the_host_goes_on() {
    let host = Setup::new().plugin("versioned").start().await;
    for request in [
        "nonsense\r\n\r\n",
        "GET /versioned HTTP/1.1\r\nbad header\r\n\r\n",
        "GET /versioned HTTP/1.1\r\n\r\n",
        "GET /versioned HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET /versioned HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let mut wire = host.wire().await;
        wire.send(request).await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{request:?}: {answer:?}"
        );
    }
    assert_eq!(host.get("/versioned").await.status, 200);
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
    let host = Setup::new().plugin("echo").start().await;
    let mut http2 = host.http2().await;
    let response = http2
        .send(Request::get("/echo/x?y").body(empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, Version::HTTP_2)
    );
    let seen = http2.get("/echo/x?y").await.json();
    assert_eq!(seen["version"], "HTTP/2.0");
    assert_eq!(seen["original_path"], "/echo/x?y");
    assert_eq!(seen["uri"], format!("http://{}/x?y", host.address()));
    assert_eq!(host.get("/echo/x").await.json()["version"], "HTTP/1.1");
}

#[tokio::test]
async fn requests_of_one_http_2_connection_do_not_wait_for_each_other() {
    let host = Setup::new().plugin("versioned").start().await;
    let mut http2 = host.http2().await;
    let file = host.folder().join("go");
    let request = Request::get(format!("/versioned/stream?{}", file.display()))
        .body(empty())
        .unwrap();
    let slow = http2.send(request).await.unwrap();
    assert_eq!(http2.get("/versioned").await.text(), "unmarked");
    host.folder().create_empty("go");
    let body = http_body_util::BodyExt::collect(slow.into_body())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "unmarked+unmarked");
}

#[tokio::test]
async fn every_method_reaches_the_app() {
    let host = Setup::new().plugin("echo").start().await;
    let mut http2 = host.http2().await;
    for method in [
        "GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
    ] {
        let request = |_| {
            Request::builder()
                .method(Method::from_bytes(method.as_bytes()).unwrap())
                .uri("/echo/x")
        };
        for reply in [
            host.exchange(request(1).body(full("x")).unwrap()).await,
            http2
                .exchange(request(2).body(full("x")).unwrap())
                .await
                .unwrap(),
        ] {
            assert_eq!(reply.json()["method"], method);
        }
    }
}
