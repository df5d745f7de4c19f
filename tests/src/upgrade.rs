//! Connections after an upgrade: raw bytes, and WebSockets.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
    ext::Protocol,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::Role},
};

use crate::{RequestBody, empty, within};

/// Sends `request` over HTTP/1.1. Returns the response, and the upgraded connection, or `None` if the server does not
/// accept the upgrade.
///
/// # Panics
///
/// Panics if the server does not respond.
pub async fn upgrade(
    address: SocketAddr,
    mut request: Request<RequestBody>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("nothing is exchanged yet");
    tokio::spawn(connection.with_upgrades());
    let host = address.to_string().parse().expect("an address is a header");
    request.headers_mut().entry(HOST).or_insert(host);
    take_upgraded(within("a response", sender.send_request(request)).await).await
}

/// Sends a plain or an extended `CONNECT` (RFC 8441) over HTTP/2. Returns the response, and the upgraded stream, or
/// `None` if the server does not accept the upgrade.
///
/// # Panics
///
/// Panics if the server does not respond.
pub async fn upgrade_http2(
    address: SocketAddr,
    request: Request<RequestBody>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("nothing is exchanged yet");
    tokio::spawn(connection);
    // hyper sends an extended CONNECT only after the server's settings have allowed it. The settings arrive before the
    // first response, so send another request first.
    let first = Request::get(format!("http://{address}/"))
        .body(empty())
        .expect("the request is valid");
    within("a first response", sender.send_request(first))
        .await
        .expect("the server answers");
    take_upgraded(within("a response", sender.send_request(request)).await).await
}

/// Returns the response, and the upgraded connection if the response accepts the upgrade.
async fn take_upgraded(
    response: hyper::Result<Response<Incoming>>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let mut response = response.expect("the server answers");
    if response.status() != 101 && !response.status().is_success() {
        return (response, None);
    }
    let upgraded = within("the upgrade", hyper::upgrade::on(&mut response)).await;
    (response, upgraded.ok().map(TokioIo::new))
}

/// A WebSocket client.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<TokioIo<Upgraded>>);

impl WebSocket {
    /// Opens a WebSocket over HTTP/1.1.
    ///
    /// # Panics
    ///
    /// Panics if the server does not accept the upgrade.
    pub async fn http1(address: SocketAddr, path: &str) -> Self {
        let request = Request::get(path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        let request = request.body(empty()).expect("the request is valid");
        let (response, upgraded) = upgrade(address, request).await;
        assert_eq!(response.status(), 101);
        // The key above and this value are the example in RFC 6455, section 1.3.
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        Self::on(upgraded).await
    }

    /// Opens a WebSocket over HTTP/2.
    ///
    /// # Panics
    ///
    /// Panics if the server does not accept the upgrade.
    pub async fn http2(address: SocketAddr, path: &str) -> Self {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{address}{path}"))
            .extension(Protocol::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, "13");
        let request = request.body(empty()).expect("the request is valid");
        let (response, upgraded) = upgrade_http2(address, request).await;
        let status = response.status();
        if upgraded.is_none() {
            let body = response
                .into_body()
                .collect()
                .await
                .expect("the response has a body");
            panic!("{status}: {:?}", body.to_bytes());
        }
        assert_eq!(status, 200);
        Self::on(upgraded).await
    }

    async fn on(upgraded: Option<TokioIo<Upgraded>>) -> Self {
        let stream = upgraded.expect("the server has accepted the upgrade");
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Sends a message.
    ///
    /// # Panics
    ///
    /// Panics if the server has closed the WebSocket.
    pub async fn send(&mut self, message: impl Into<Message>) {
        within("a message is taken", self.0.send(message.into()))
            .await
            .expect("the server reads");
    }

    /// Returns the next message, or `None` after the server has closed the WebSocket.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        within("a message", self.0.next()).await.transpose()
    }

    /// Returns the next message as text.
    ///
    /// # Panics
    ///
    /// Panics if the next message is not text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Ok(Some(Message::Text(text))) => text.to_string(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// Waits until the server closes the WebSocket, and returns the status code of the close frame.
    ///
    /// # Panics
    ///
    /// Panics if the server sends another message, or a close frame without a status code.
    pub async fn closed(mut self) -> u16 {
        let code = match self.next().await {
            Ok(Some(Message::Close(Some(frame)))) => frame.code.into(),
            other => panic!("it is not closed: {other:?}"),
        };
        while self.next().await.expect("the server closes").is_some() {}
        code
    }

    /// Closes the WebSocket, and waits until the server has closed its side.
    ///
    /// # Panics
    ///
    /// Panics if the connection breaks.
    pub async fn close(mut self) {
        self.0.close(None).await.expect("the server reads");
        while self.next().await.expect("the server closes").is_some() {}
    }
}
