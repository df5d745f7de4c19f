//! An HTTP client with one connection.

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

/// Returns a body with these bytes. Its length is known, so the request has a `content-length`.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A connection to an HTTP server. Dropping the value closes the connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
    /// The task that drives the connection. Ends when the connection ends.
    driver: JoinHandle<Result<(), hyper::Error>>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Connection {
    /// Opens an HTTP/1.1 connection. It sends one request after the other.
    ///
    /// # Panics
    ///
    /// Panics if the server does not accept the connection.
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

    /// Opens an HTTP/2 connection with prior knowledge. It can send several requests at the same time.
    ///
    /// # Panics
    ///
    /// Panics if the server does not accept the connection.
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

    /// Sends a request, and returns the response when its head has arrived. The request's URI is a path; over HTTP/2 it
    /// may have an authority. If the request names no host, the address of the server is the host.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection ends before the response begins.
    ///
    /// # Panics
    ///
    /// Panics if no response begins within the time limit.
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
    /// Returns an error if the connection ends before the response does.
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
    /// Panics if the connection ends before the response does.
    pub async fn get(&mut self, path: &str) -> Reply {
        let request = Request::get(path).body(empty()).expect("the path is valid");
        self.exchange(request)
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&mut self) {
        // A connection may end with an error, for example after a reset.
        let _result = within("the end of the connection", &mut self.driver).await;
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
        .expect("the server listens")
}

/// A response with its whole body.
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
    /// Panics if the body is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the value of a header field as text. Returns an empty text if the response has no such field.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}
