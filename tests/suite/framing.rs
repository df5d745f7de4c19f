//! The body of a response has the length that the head states, whatever the app does.

use host_tests::{Host, Setup, empty};
use hyper::{Method, Request, Version};

/// Starts a host with the fixtures `framing` and `native`.
async fn framing() -> Host {
    let setup = Setup::new().plugin("framing").plugin("native");
    setup
        .args(&["--access-log=-", "--access-log-format=json"])
        .start()
        .await
}

/// Queries that make the app send a `content-length` that is wrong for its body of ten bytes.
const WRONG_LENGTHS: &[&str] = &[
    "length=5",
    "length=0",
    "length=11",
    "length=x",
    "length=-1",
    "length=10,10",
    "length=10&length=5",
    "length=99999999999999999999",
];

#[tokio::test]
async fn a_length_that_is_not_the_bodys_is_a_500_and_the_next_response_is_the_next_ones() {
    let host = framing().await;
    for (index, lengths) in WRONG_LENGTHS.iter().enumerate() {
        for (method, path) in [
            ("GET", format!("/framing?body=whole&{lengths}")),
            // The native handler gets the `HEAD` request, because axum's router itself would remove the body of the
            // response.
            ("HEAD", format!("/native/framed?{lengths}")),
            ("GET", format!("/native/framed?{lengths}")),
        ] {
            let mut wire = host.wire().await;
            wire.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {method}{index}\r\n\r\n\
                 GET /framing?body=whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ))
            .await;
            let answers = wire.rest().await;
            let text = if method == "HEAD" {
                ""
            } else {
                "500 Internal Server Error\n"
            };
            assert!(
                answers.starts_with("HTTP/1.1 500 Internal Server Error\r\n")
                    && answers.contains(&format!("\r\n\r\n{text}HTTP/1.1 200 OK\r\n"))
                    && answers.ends_with("\r\n\r\n0123456789"),
                "{method} {path}: {answers}"
            );
            assert!(answers.contains("content-length: 26\r\n"), "{answers}");
        }
        let id = format!("GET{index}");
        let line = host
            .log()
            .eventually(&["ERROR", &id, "plugin=framing"])
            .await;
        assert!(line.contains("content-length"), "{line}");
        host.log()
            .eventually(&["ERROR", &id, "plugin=native"])
            .await;
        let line = host.stdout().eventually(&[&id, "/framing"]).await;
        for part in ["\"status\":500", "\"outcome\":\"failed\""] {
            assert!(line.contains(part), "{line}");
        }
    }
    let mut http2 = host.http2().await;
    for lengths in WRONG_LENGTHS {
        for path in ["/framing?body=whole&", "/native/framed?"] {
            let reply = http2.get(&format!("{path}{lengths}")).await;
            assert_eq!(
                (reply.status.as_u16(), &*reply.text()),
                (500, "500 Internal Server Error\n"),
                "{path}{lengths}"
            );
        }
    }
    // Each response is reported by one line only.
    assert_eq!(
        host.log().with(&["ERROR", "GET0", "plugin=framing"]).len(),
        1
    );
}

#[tokio::test]
async fn a_length_for_no_body_is_a_500_but_for_a_head() {
    let host = framing().await;
    for mut connection in [host.http1().await, host.http2().await] {
        let reply = connection.get("/framing?length=5").await;
        assert_eq!(reply.status, 500);
        let head = Request::head("/framing?length=5").body(empty()).unwrap();
        let reply = connection.exchange(head).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-length")),
            (200, "5")
        );
        let reply = connection.get("/framing?length=0").await;
        assert_eq!((reply.status.as_u16(), &*reply.text()), (200, ""));
        // A correct length is not changed. If the app sends a correct length twice, the host sends it once.
        let reply = connection
            .get("/framing?length=10&length=10&body=whole")
            .await;
        assert_eq!((reply.status.as_u16(), &*reply.text()), (200, "0123456789"));
        assert_eq!(reply.headers.get_all("content-length").iter().count(), 1);
    }
}

#[tokio::test]
async fn a_stream_of_another_length_than_its_head_says_breaks_off_with_a_line() {
    let host = framing().await;
    for (index, (query, error)) in [
        ("body=stream&length=11", "after 10 of the 11 bytes"),
        ("body=late&length=11", "after 10 of the 11 bytes"),
        ("body=stream&length=7", "longer than the 7 bytes"),
        ("body=late&length=7", "longer than the 7 bytes"),
        ("body=boastful", "after 10 of the 20 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut connection = host.connect(version).await;
            let id = format!("{version:?}-{index}").replace('/', "-");
            let request = Request::get(format!("/framing?{query}")).header("x-request-id", &id);
            let reply = connection.exchange(request.body(empty()).unwrap()).await;
            assert!(reply.is_err(), "{version:?} {query}: {reply:?}");
            let line = host
                .log()
                .eventually(&["ERROR", &id, "plugin=framing"])
                .await;
            assert!(line.contains(error), "{line}");
            let line = host.stdout().eventually(&[&id]).await;
            assert!(line.contains("\"outcome\":\"failed\""), "{line}");
        }
    }
    for mut connection in [host.http1().await, host.http2().await] {
        for query in [
            "body=stream&length=10",
            "body=late&length=10",
            "body=late",
            "body=stream",
        ] {
            let reply = connection.get(&format!("/framing?{query}")).await;
            assert_eq!(reply.text(), "0123456789", "{query}");
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_has_a_line_with_its_error() {
    let host = framing().await;
    for (body, version) in [
        ("broken", Version::HTTP_11),
        ("broken", Version::HTTP_2),
        ("broken-at-once", Version::HTTP_11),
        ("broken-at-once", Version::HTTP_2),
    ] {
        let mut connection = host.connect(version).await;
        let id = format!("{body}-{version:?}").replace('/', "-");
        let request = Request::get(format!("/framing?body={body}")).header("x-request-id", &id);
        let reply = connection.exchange(request.body(empty()).unwrap()).await;
        assert!(reply.is_err(), "{reply:?}");
        let line = host.log().eventually(&["ERROR", &id]).await;
        assert!(
            line.contains("plugin=framing") && line.contains("as asked"),
            "{line}"
        );
        assert_eq!(host.log().with(&["ERROR", &id]).len(), 1);
    }
}

#[tokio::test]
async fn a_status_without_a_body_has_neither_body_nor_length() {
    let host = framing().await;
    for status in [204, 304] {
        for body in ["whole", "stream", "late", "none"] {
            for length in ["", "&length=10", "&length=3", "&length=x"] {
                let path = format!("/framing?status={status}&body={body}{length}");
                let expected = if length == "&length=x" { 500 } else { status };
                for method in [Method::GET, Method::HEAD] {
                    let request = Request::builder().method(&method).uri(&path);
                    let request = request.body(empty()).unwrap();
                    let response = host.http2().await.send(request).await.unwrap();
                    assert_eq!(response.status(), expected, "{method} {path}");
                    if expected == status {
                        // The head has ended the stream.
                        assert!(hyper::body::Body::is_end_stream(response.body()), "{path}");
                        assert!(!response.headers().contains_key("content-length"), "{path}");
                    }
                    let mut wire = host.wire().await;
                    wire.send(format!(
                        "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n\
                         GET /framing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                    ))
                    .await;
                    let head = wire.head().await;
                    assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{head}");
                    if expected == status {
                        assert!(!head.contains("content-length"), "{path}: {head}");
                        assert!(!head.contains("transfer-encoding"), "{path}: {head}");
                        let next = wire.head().await;
                        assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {next}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_value_with_blanks_around_it_has_none_on_the_wire_of_http_2() {
    let host = framing().await;
    for mut connection in [host.http1().await, host.http2().await] {
        let reply = connection.get("/framing?padded=y").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-padded")),
            (200, "y")
        );
    }
}

#[tokio::test]
async fn an_interim_status_is_no_response() {
    let host = framing().await;
    for (version, status) in [
        (Version::HTTP_11, 100),
        (Version::HTTP_11, 103),
        (Version::HTTP_2, 103),
        (Version::HTTP_2, 101),
    ] {
        let mut connection = host.connect(version).await;
        let reply = connection.get(&format!("/framing?status={status}")).await;
        assert_eq!(reply.status, 500, "{version:?} {status}");
        host.log()
            .eventually(&["ERROR", "plugin=framing", &status.to_string()])
            .await;
        // The connection is still usable.
        assert_eq!(
            connection.get("/framing?body=whole").await.text(),
            "0123456789"
        );
    }
}

#[tokio::test]
async fn a_reason_phrase_of_the_apps_is_left_out() {
    let host = framing().await;
    let mut wire = host.wire().await;
    wire.send("GET /framing?reason=Fine HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}
