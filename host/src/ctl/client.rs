//! The HTTP client of the control socket. Each request has its own connection.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Creates a request for the control socket.
///
/// # Errors
///
/// Fails when the path contains a character that a URI cannot have.
pub(crate) fn request(
    method: Method,
    path: &str,
    body: impl Into<Full<Bytes>>,
) -> http::Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(path)
        // The server ignores the value, but HTTP/1.1 requires the header.
        .header(HOST, "host")
        .body(body.into())
}

/// Sends a request, and returns the status and the whole body of the response.
///
/// # Errors
///
/// Fails when the connection is closed before the whole response arrived.
pub(crate) async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // Poll the connection too: it does the reading and writing for the exchange. If the connection ends without an
    // error, the exchange still has to return the response.
    tokio::select! {
        exchanged = exchange => exchanged,
        Err(error) = connection => Err(error),
    }
}
