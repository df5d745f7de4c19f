//! The target of a request: its host and its resource, as the rules of RFC 9112 and 9113 determine them, and as the app
//! sees them. Also the cookie fields that HTTP/2 splits.

use host_tests::{Host, Setup, empty};
use hyper::{Request, Version};
use serde_json::Value;

/// Starts a host with `echo` at `/` and `native` at `/native`. The access log shows cookie, host, status and outcome.
async fn echo() -> Host {
    let setup = Setup::new().plugin("echo").plugin("native");
    let format =
        "--access-log-format=%(U)s cookie=%({cookie}i)s host=%({host}i)s %(s)s %({outcome}e)s";
    setup
        .args(&["--mount=/=echo,/native=native", "--access-log=-", format])
        .start()
        .await
}

/// Returns the values of a header field, from the app's description of the request.
fn seen(json: &Value, name: &str) -> Vec<String> {
    let fields = json["headers"].as_array().unwrap();
    let fields = fields.iter().filter(|field| field[0] == name);
    fields
        .map(|field| field[1].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_cookie_that_http_2_splits_is_one_field_for_apps_and_the_log() {
    let host = echo().await;
    let request = |path| {
        let request = Request::get(path).header("cookie", "session=abc");
        let request = request
            .header("cookie", "theme=dark; a=1")
            .header("cookie", "b=2");
        request.body(empty()).unwrap()
    };
    let whole = "session=abc; theme=dark; a=1; b=2";
    let mut http2 = host.http2().await;
    let json = http2.exchange(request("/joined")).await.unwrap().json();
    assert_eq!(seen(&json, "cookie"), [whole]);
    let reply = http2
        .exchange(request("/native/fields?cookie"))
        .await
        .unwrap();
    assert_eq!(reply.text(), whole);
    for path in ["/joined", "/native/fields"] {
        let line = host.stdout().eventually(&[path]).await;
        assert!(line.contains(&format!("cookie={whole} ")), "{line}");
    }
    // HTTP/1 does not allow a client to split the field, so the host does not join the fields.
    let json = host.exchange(request("/apart")).await.json();
    assert_eq!(seen(&json, "cookie").len(), 3);
}

#[tokio::test]
async fn an_absolute_target_says_the_host_whatever_the_field_says() {
    let host = echo().await;
    for (target, uri, original) in [
        ("http://other:81/a?b", "http://other:81/a?b", "/a?b"),
        ("http://other:81?x", "http://other:81/?x", "/?x"),
        ("http://other:81", "http://other:81/", "/"),
    ] {
        for (version, field) in [("1.1", "Host: a\r\n"), ("1.0", "Host: a\r\n"), ("1.0", "")] {
            let mut wire = host.wire().await;
            wire.send(format!("GET {target} HTTP/{version}\r\n{field}\r\n"))
                .await;
            let (_, body) = wire.response().await;
            let json: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(seen(&json, "host"), ["other:81"], "{target}");
            assert_eq!(
                (&json["uri"], &json["original_path"]),
                (&uri.into(), &original.into())
            );
        }
    }
    host.stdout().eventually(&["host=other:81"]).await;
}

#[tokio::test]
async fn a_request_that_is_for_no_host_or_resource_is_400_and_closes() {
    let host = echo().await;
    for (target, fields) in [
        ("GET /", "Host: a b"),
        ("GET /", "Host: u@a"),
        ("GET /", "Host: a/b"),
        ("GET /", "Host: a,b"),
        ("GET /", "Host: a:b"),
        ("GET /", "Host: a\r\nHost: a"),
        ("GET http://u@a/", "Host: a"),
        ("GET *", "Host: a"),
        ("GET a:80", "Host: a"),
        ("POST a", "Host: a"),
        ("CONNECT /", "Host: a"),
        ("CONNECT a", "Host: a"),
        ("CONNECT http://a:80/", "Host: a"),
    ] {
        let mut wire = host.wire().await;
        wire.send(format!("{target} HTTP/1.1\r\n{fields}\r\n\r\n"))
            .await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{target} {fields}: {answer}"
        );
        let lower = answer.to_lowercase();
        assert!(lower.contains("connection: close\r\n"), "{answer}");
    }
    host.stdout().nth_with(12, &["400 malformed"]).await;
    for field in [
        "Host:",
        "Host: [::1]:80",
        "Host: a_b.example:",
        "Host: a%20b",
    ] {
        let mut wire = host.wire().await;
        wire.send(format!("GET / HTTP/1.1\r\n{field}\r\n\r\n"))
            .await;
        let (head, _) = wire.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{field}: {head}");
    }
}

#[tokio::test]
async fn a_request_of_http_2_that_is_for_two_hosts_or_none_is_400() {
    let host = echo().await;
    let mut http2 = host.http2().await;
    for (uri, fields, status) in [
        ("http://a/b", &[("host", "a")][..], 200),
        ("http://a:80/b", &[("host", "A")], 200),
        ("http://a/b", &[("host", "b")], 400),
        ("http://a/b", &[("host", "a"), ("host", "a")], 400),
        ("http://u@a/b", &[], 400),
        ("http://a,b/b", &[], 400),
        ("http://a/b", &[("x-padded", "y ")], 400),
    ] {
        let mut request = Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let reply = http2
            .exchange(request.body(empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{uri} {fields:?}");
    }
}

#[tokio::test]
async fn a_wrong_preface_of_http_2_is_400_and_closes() {
    let host = echo().await;
    for preface in [
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: x\r\n\r\n",
    ] {
        let mut wire = host.wire().await;
        wire.send(preface).await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{preface}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_native_handler_sees_the_host_over_both_versions() {
    let host = echo().await;
    let address = host.address().to_string();
    for (version, expected) in [
        (
            Version::HTTP_11,
            format!("None None Some({address:?}) None"),
        ),
        (
            Version::HTTP_2,
            format!("Some(\"http\") Some({address:?}) Some({address:?}) None"),
        ),
    ] {
        let mut connection = host.connect(version).await;
        assert_eq!(connection.get("/native/host").await.text(), expected);
    }
    let mut wire = host.wire().await;
    wire.send("GET http://other/native/host HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let (_, body) = wire.response().await;
    assert_eq!(body, "Some(\"http\") Some(\"other\") Some(\"other\") None");
    let mut wire = host.wire().await;
    wire.send("GET /native/host HTTP/1.0\r\n\r\n").await;
    assert!(wire.rest().await.ends_with("\r\n\r\nNone None None None"));
}
