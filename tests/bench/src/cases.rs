//! The requests that the benchmarks send.

/// The cases of `scripts/bench http`.
pub const CASES: [Case<'static>; 9] = [
    HELLO,
    Case {
        name: "headers",
        title: "hello, 12 headers",
        headers: &BROWSER,
        ..HELLO
    },
    Case {
        name: "http2",
        title: "hello, HTTP/2, 64 streams",
        protocol: Protocol::Http2,
        connections: 1,
        ..HELLO
    },
    Case {
        name: "echo",
        title: "1 KiB JSON echoed",
        paths: &["/echo"],
        headers: &[("Content-Type", "application/json")],
        upload: 1 << 10,
        answer: 1 << 10,
        on_nginx: false,
        ..HELLO
    },
    Case {
        name: "large",
        title: "1 MiB response",
        paths: &["/large"],
        connections: 8,
        answer: 1 << 20,
        on_nginx: false,
        ..HELLO
    },
    Case {
        name: "upload",
        title: "1 MiB upload",
        paths: &["/upload"],
        connections: 8,
        upload: 1 << 20,
        answer: "1048576".len(),
        on_nginx: false,
        ..HELLO
    },
    Case {
        name: "chunks",
        title: "256 chunks of 4 KiB",
        paths: &["/chunks"],
        connections: 8,
        answer: 1 << 20,
        on_nginx: false,
        ..HELLO
    },
    Case {
        name: "wait",
        title: "a handler that waits 1 ms",
        paths: &["/wait"],
        connections: 256,
        on_nginx: false,
        ..HELLO
    },
    Case {
        name: "close",
        title: "connection per request",
        headers: &[("Connection", "close")],
        ..HELLO
    },
];

/// The case of which the others are variants: a small response, over keep-alive connections.
pub const HELLO: Case<'static> = Case {
    name: "hello",
    title: "hello, 1 header",
    protocol: Protocol::Http1,
    paths: &["/quiet"],
    headers: &[],
    connections: 32,
    upload: 0,
    answer: "hello world".len(),
    on_nginx: true,
};

/// A kind of request, and how the client repeats it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The name for the option `--case`.
    pub name: &'a str,
    /// The name in the printed table.
    pub title: &'a str,
    /// The version of HTTP.
    pub protocol: Protocol,
    /// The paths that are requested in turn.
    pub paths: &'a [&'a str],
    /// Headers, without `Host`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The number of connections that are used at the same time. An HTTP/2 connection has [`STREAMS`] requests in
    /// flight.
    pub connections: u32,
    /// The size of the request's body. A request with a body is a `POST`.
    pub upload: usize,
    /// The size of the response's body.
    pub answer: usize,
    /// Whether nginx can answer the request with `return 200`.
    pub on_nginx: bool,
}

impl Case<'_> {
    /// Returns the JSON body of the requests, or `None` if they have no body.
    #[must_use]
    pub fn body(&self) -> Option<String> {
        let filling = self.upload.checked_sub(r#"{"text":""}"#.len())?;
        Some(format!(r#"{{"text":"{}"}}"#, "x".repeat(filling)))
    }
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS.
    Http2,
}

/// The number of requests that an HTTP/2 connection has in flight.
pub const STREAMS: u32 = 64;

/// The header fields that a browser sends, without `Host`, which is the twelfth.
pub const BROWSER: [(&str, &str); 11] = [
    ("Connection", "keep-alive"),
    ("Cache-Control", "max-age=0"),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("Upgrade-Insecure-Requests", "1"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Cookie", "session=0f3c2a9b7d5e4f16; theme=dark"),
];

/// Returns the bytes of a `GET` request in HTTP/1.1.
#[must_use]
pub fn get(path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost:8000\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}
