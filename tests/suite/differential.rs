//! The same app runs under `axum::serve` and under the host. Both get the same requests, and their responses must be
//! equal, byte for byte.
//!
//! Three things are not compared: the value of `date`; the header `x-request-id`, which the host adds; and whether
//! `content-length` comes before or after the `connection` that hyper adds.

use std::{net::SocketAddr, ops::Range};

use bytes::Bytes;
use host_tests::{Connection, Setup, Wire, empty, full, within};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request};
use tokio::net::TcpListener;

/// A request: the method, the target, the headers and the body.
type TestRequest = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static [u8])],
    &'static [u8],
);

const JSON: (&str, &[u8]) = ("content-type", b"application/json");
const FORM: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
const PARTS: (&str, &[u8]) = ("content-type", b"multipart/form-data; boundary=XX");
const LARGE: &[u8] = &[b'l'; 300_000];

/// The requests. Their order matters, because some responses depend on earlier requests. A 204 or a 304 with a body is
/// not tested, because `axum::serve` sends the body over HTTP/2, and its length over HTTP/1.
const REQUESTS: &[TestRequest] = &[
    ("GET", "/", &[], b""),
    ("GET", "/nothing/here?at=all", &[], b""),
    ("GET", "/%7Ea/%C3%A9/%2F", &[], b""),
    ("GET", "//double//slashes/", &[], b""),
    ("GET", "/a/../b/./c", &[], b""),
    ("GET", "/?", &[], b""),
    ("GET", "/q?a=1&a=2&b=%20+c&d", &[], b""),
    ("DELETE", "/anything", &[], b""),
    ("PATCH", "/anything", &[], b"patch"),
    ("PURGE", "/anything", &[], b""),
    ("M-SEARCH", "/anything", &[], b""),
    ("OPTIONS", "/anything", &[], b""),
    ("HEAD", "/anything", &[], b""),
    ("GET", "/h", &[("x-many", b"one"), ("x-many", b""), ("x-many", b"two")], b""),
    ("GET", "/h", &[("x-latin", b"caf\xe9 \x80\xff")], b""),
    ("GET", "/h", &[("x-spaces", b"a \t b"), ("cookie", b"a=1; b=2")], b""),
    ("GET", "/h", &[("accept", b"*/*"), ("accept-language", b"de, en;q=0.5"), ("user-agent", b"test")], b""),
    ("POST", "/body", &[], b"some text"),
    ("POST", "/body", &[], b""),
    ("POST", "/body", &[], LARGE),
    ("PUT", "/bytes", &[], b"\0\x01\xff"),
    ("POST", "/bytes", &[], LARGE),
    ("GET", "/query?a=1&b=2", &[], b""),
    ("GET", "/query?%FF", &[], b""),
    ("GET", "/status/200", &[], b""),
    ("GET", "/status/205", &[], b""),
    ("GET", "/status/404", &[], b""),
    ("GET", "/status/418", &[], b""),
    ("GET", "/status/503", &[], b""),
    ("GET", "/status/599", &[], b""),
    ("GET", "/status/999", &[], b""),
    ("GET", "/status/1000", &[], b""),
    ("GET", "/status/x", &[], b""),
    ("HEAD", "/status/200", &[], b""),
    ("GET", "/headers", &[], b""),
    ("HEAD", "/headers", &[], b""),
    ("POST", "/headers", &[], b""),
    ("GET", "/redirect", &[], b""),
    ("GET", "/chunks", &[], b""),
    ("HEAD", "/chunks", &[], b""),
    ("GET", "/length", &[], b""),
    ("HEAD", "/length", &[], b""),
    ("GET", "/trailers", &[], b""),
    ("GET", "/trailers", &[("te", b"trailers")], b""),
    ("GET", "/compressed/text", &[], b""),
    ("GET", "/compressed/text", &[("accept-encoding", b"gzip")], b""),
    ("GET", "/compressed/text", &[("accept-encoding", b"br;q=1.0, gzip;q=0.5")], b""),
    ("HEAD", "/compressed/text", &[("accept-encoding", b"gzip")], b""),
    ("GET", "/compressed/small", &[("accept-encoding", b"gzip")], b""),
    ("GET", "/files/none", &[], b""),
    ("PUT", "/files/large", &[], LARGE),
    ("GET", "/files/large", &[], b""),
    ("PUT", "/files/..", &[], b"out"),
    ("POST", "/files/large", &[], b""),
    ("GET", "/kv/a", &[], b""),
    ("PUT", "/kv/a", &[], b"value"),
    ("PUT", "/kv/a", &[], b"other"),
    ("PUT", "/kv/b%20c", &[], b""),
    ("GET", "/kv/a", &[], b""),
    ("PUT", "/kv/large", &[], LARGE),
    ("GET", "/kv", &[], b""),
    ("DELETE", "/kv/a", &[], b""),
    ("DELETE", "/kv/a", &[], b""),
    ("POST", "/forms/fields", &[FORM], b"a=1&b=%C3%A9"),
    ("POST", "/forms/fields", &[JSON], b"a=1"),
    ("POST", "/forms/parts", &[PARTS], b"--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--XX--\r\n"),
    ("POST", "/forms/parts", &[PARTS], b"--XX\r\nbroken"),
    ("POST", "/forms/parts", &[], b""),
    ("GET", "/ids", &[], b""),
    ("GET", "/ids", &[("x-app-request-id", b"mine")], b""),
    ("GET", "/ids", &[], b""),
    ("GET", "/slow", &[], b""),
    ("GET", "/slow/limited", &[], b""),
    ("GET", "/sse/three", &[("accept", b"text/event-stream")], b""),
    ("GET", "/todos", &[], b""),
    ("POST", "/todos", &[JSON], b"{\"text\":\"write\"}"),
    ("POST", "/todos", &[JSON], b"{\"text\":\"test\"}"),
    ("POST", "/todos", &[JSON], b"{\"text\":"),
    ("POST", "/todos", &[JSON], b"{}"),
    ("POST", "/todos", &[], b"{\"text\":\"x\"}"),
    ("PATCH", "/todos/0", &[JSON], b"{\"done\":true}"),
    ("PATCH", "/todos/9", &[JSON], b"{}"),
    ("GET", "/todos?offset=1&limit=5", &[], b""),
    ("GET", "/todos?limit=x", &[], b""),
    ("DELETE", "/todos/0", &[], b""),
    ("GET", "/ws/echo", &[], b""),
    ("GET", "/shout", &[], b""),
];

/// Requests that can only be sent as raw bytes of HTTP/1.
const RAW_REQUESTS: &[&str] = &[
    "GET http://example.org/absolute?x HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET /chunks HTTP/1.0\r\n\r\n",
    "GET /sse/three HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /a HTTP/1.0\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "POST /bytes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n",
    "POST /trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
    "POST /bytes HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    "POST /status/200 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    "POST /bytes HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    "POST /bytes HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "GET /h HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
    "GET /h HTTP/1.1\r\nHost: x\r\nBad Header: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/3.7\r\nHost: x\r\n\r\n",
    "GET /ws/echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n",
];

#[tokio::test]
async fn answers_are_those_of_axum_over_http_1() {
    let (axum, host) = servers().await;
    let requests: Vec<_> = REQUESTS.iter().map(to_http1).collect();
    let raw_requests = RAW_REQUESTS.iter().map(|text| text.as_bytes().to_vec());
    for request in requests.into_iter().chain(raw_requests) {
        let mut answers = Vec::new();
        for address in [axum, host.address()] {
            let mut wire = Wire::connect(address).await;
            wire.send(&request).await;
            answers.push(comparable(&wire.rest_bytes().await));
        }
        let [from_axum, from_host] = &answers[..] else {
            unreachable!()
        };
        let request = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        assert_eq!(from_host, from_axum, "{request}");
    }
}

#[tokio::test]
async fn answers_are_those_of_axum_over_http_2() {
    let (axum, host) = servers().await;
    let mut connections = [Connection::http2(axum).await, host.http2().await];
    for test_request @ (method, target, headers, body) in REQUESTS {
        let mut answers = Vec::new();
        for connection in &mut connections {
            let uri = format!("http://example.org{target}");
            let mut request = Request::builder().method(*method).uri(uri);
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let body = if body.is_empty() {
                empty()
            } else {
                full(*body)
            };
            let response = connection.send(request.body(body).unwrap()).await;
            let (mut head, body) = response
                .unwrap_or_else(|error| panic!("{test_request:?}: {error:?}"))
                .into_parts();
            if head.status == 204 {
                // axum adds a length, which RFC 9110, section 8.6, forbids. hyper removes it over
                // HTTP/1.
                head.headers.remove("content-length");
            }
            let body = within("the body", body.collect()).await.unwrap();
            let trailers = body.trailers().cloned();
            answers.push((
                head.status,
                compared_headers(head.headers),
                trailers,
                body.to_bytes(),
            ));
        }
        let [from_axum, from_host] = &answers[..] else {
            unreachable!()
        };
        assert_eq!(from_host, from_axum, "{method} {target}");
    }
}

/// Starts the app under `axum::serve` and under a host. Returns the address of the first server, and the host.
async fn servers() -> (SocketAddr, host_tests::Host) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, gallery::app()).await });
    (address, Setup::new().plugin("gallery").start().await)
}

/// Returns the bytes of a request in HTTP/1.1.
fn to_http1((method, target, headers, body): &TestRequest) -> Vec<u8> {
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").into_bytes();
    for (name, value) in *headers {
        request.extend(format!("{name}: ").as_bytes());
        request.extend(*value);
        request.extend(b"\r\n");
    }
    if !body.is_empty() {
        request.extend(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    request.extend(b"\r\n");
    request.extend(*body);
    request
}

/// Returns the escaped bytes of a response, without the two headers that are not compared, and with `connection` always
/// behind `content-length`.
fn comparable(answer: &[u8]) -> String {
    let mut text = answer.escape_ascii().to_string();
    while let Some(range) =
        find_header_line(&text, "date: ").or_else(|| find_header_line(&text, "x-request-id: "))
    {
        text.replace_range(range, "");
    }
    for value in ["close", "keep-alive"] {
        let connection = format!("\\r\\nconnection: {value}");
        while let Some(at) = text.find(&format!("{connection}\\r\\ncontent-length: ")) {
            text.replace_range(at..at + connection.len(), "");
            let length =
                find_header_line(&text[at..], "content-length: ").map_or(0, |length| length.end);
            text.insert_str(at + length, &connection);
        }
    }
    text
}

/// Returns the range of a header line in escaped text, from the line break before the header to the line break behind
/// it.
fn find_header_line(text: &str, name: &str) -> Option<Range<usize>> {
    let start = text.find(&format!("\\r\\n{name}"))?;
    let len = text[start + 4..].find("\\r\\n")? + 4;
    Some(start..start + len)
}

/// Returns the headers that are compared, in their order.
fn compared_headers(headers: HeaderMap) -> Vec<(String, Bytes)> {
    headers
        .iter()
        .filter(|(name, _)| *name != "date" && *name != "x-request-id")
        .map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}
