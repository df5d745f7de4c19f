//! An HTTP client on one connection.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    client::conn::{http1, http2},
    header::HOST,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::within;

/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// Returns an empty body.
#[must_use]
pub fn empty() -> RequestBody {
    Empty::new().boxed_unsync()
}

/// Returns a body of these bytes, whose length is known.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A connection. Dropping the value closes the connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Connection {
    /// Opens a connection of HTTP/1.1, which takes one request after the other.
    ///
    /// # Panics
    ///
    /// When nobody accepts.
    pub async fn http1(address: SocketAddr) -> Self {
        let stream = TokioIo::new(connect(address).await);
        let (sender, connection) = http1::handshake(stream)
            .await
            .expect("nothing is exchanged yet");
        Self {
            address,
            sender: Sender::Http1(sender),
            driver: tokio::spawn(connection),
        }
    }

    /// Opens a connection of HTTP/2 with prior knowledge, which takes many requests at once.
    ///
    /// # Panics
    ///
    /// When nobody accepts.
    pub async fn http2(address: SocketAddr) -> Self {
        let stream = TokioIo::new(connect(address).await);
        let handshake = http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = within("a handshake", handshake)
            .await
            .expect("the peer speaks HTTP/2");
        Self {
            address,
            sender: Sender::Http2(sender),
            driver: tokio::spawn(connection),
        }
    }

    /// Sends a request whose target is a path. Adds the host, unless the request has one over
    /// HTTP/2. Returns when the head of the response is there.
    ///
    /// # Errors
    ///
    /// When the connection ends before the response begins.
    ///
    /// # Panics
    ///
    /// When no response comes in time.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let (mut head, body) = request.into_parts();
        let what = format!("the head of a response to {} {}", head.method, head.uri);
        match &mut self.sender {
            Sender::Http1(sender) => {
                let host = self
                    .address
                    .to_string()
                    .parse()
                    .expect("an address is a header");
                head.headers.entry(HOST).or_insert(host);
                within(&what, async {
                    sender.ready().await?;
                    sender.send_request(Request::from_parts(head, body)).await
                })
                .await
            }
            Sender::Http2(sender) => {
                if head.uri.authority().is_none() {
                    head.uri = format!("http://{}{}", self.address, head.uri)
                        .parse()
                        .expect("the target is a path");
                }
                within(&what, async {
                    sender.ready().await?;
                    sender.send_request(Request::from_parts(head, body)).await
                })
                .await
            }
        }
    }

    /// Sends a request and returns the whole response.
    ///
    /// # Errors
    ///
    /// When the connection ends before the response does.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Reply, hyper::Error> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = within("the end of a response", body.collect()).await?;
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// Sends `GET path` and returns the whole response.
    ///
    /// # Panics
    ///
    /// When the connection ends before the response does.
    pub async fn get(&mut self, path: &str) -> Reply {
        let request = Request::get(path).body(empty()).expect("the path is one");
        self.exchange(request)
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// Returns when the server has closed the connection.
    pub async fn closed(&mut self) {
        let _how = within("the end of the connection", &mut self.driver).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address))
        .await
        .expect("somebody listens")
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    ///
    /// # Panics
    ///
    /// When the body is no JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the value of a header, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}
