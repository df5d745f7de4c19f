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

/// Sends `request` over HTTP/1.1, and returns the connection after the response. Returns `None` if
/// the server does not agree to the upgrade.
///
/// # Panics
///
/// When no response comes.
pub async fn upgrade(
    address: SocketAddr,
    mut request: Request<RequestBody>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("nothing is exchanged yet");
    tokio::spawn(connection.with_upgrades());
    let host = address.to_string().parse().expect("an address is a header");
    request.headers_mut().entry(HOST).or_insert(host);
    agreed(within("a response", sender.send_request(request)).await).await
}

/// Sends an extended `CONNECT` (RFC 8441) or a plain one over HTTP/2, and returns the stream after
/// the response.
///
/// # Panics
///
/// When no response comes.
pub async fn upgrade_http2(
    address: SocketAddr,
    request: Request<RequestBody>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("nothing is exchanged yet");
    tokio::spawn(connection);
    // The server's settings come before its first response. They say whether extended CONNECT is
    // allowed.
    let first = Request::get(format!("http://{address}/"))
        .body(empty())
        .expect("it is one");
    within("a first response", sender.send_request(first))
        .await
        .expect("the server answers");
    agreed(within("a response", sender.send_request(request)).await).await
}

async fn agreed(
    response: hyper::Result<Response<Incoming>>,
) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
    let mut response = response.expect("the server answers");
    if response.status() != 101 && !response.status().is_success() {
        return (response, None);
    }
    let upgraded = within("the upgrade", hyper::upgrade::on(&mut response)).await;
    (response, upgraded.ok().map(TokioIo::new))
}

/// A WebSocket.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<TokioIo<Upgraded>>);

impl WebSocket {
    /// Opens a WebSocket over HTTP/1.1.
    ///
    /// # Panics
    ///
    /// When the server does not agree to the upgrade.
    pub async fn http1(address: SocketAddr, path: &str) -> Self {
        let request = Request::get(path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        let (response, upgraded) =
            upgrade(address, request.body(empty()).expect("it is one")).await;
        assert_eq!(response.status(), 101);
        // The key and the server's answer to it are those of RFC 6455, section 1.3.
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
    /// When the server does not agree to the upgrade.
    pub async fn http2(address: SocketAddr, path: &str) -> Self {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{address}{path}"))
            .extension(Protocol::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, "13");
        let (response, upgraded) =
            upgrade_http2(address, request.body(empty()).expect("it is one")).await;
        let status = response.status();
        if upgraded.is_none() {
            let body = response
                .into_body()
                .collect()
                .await
                .expect("there is a body");
            panic!("{status}: {:?}", body.to_bytes());
        }
        assert_eq!(status, 200);
        Self::on(upgraded).await
    }

    async fn on(upgraded: Option<TokioIo<Upgraded>>) -> Self {
        let stream = upgraded.expect("the server agreed");
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Sends a message.
    ///
    /// # Panics
    ///
    /// When the server has closed the WebSocket.
    pub async fn send(&mut self, message: impl Into<Message>) {
        within("a message is taken", self.0.send(message.into()))
            .await
            .expect("the server reads");
    }

    /// Returns the next message, or `None` after the server has closed the WebSocket.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        within("a message", self.0.next()).await.transpose()
    }

    /// Returns the next message as text.
    ///
    /// # Panics
    ///
    /// When the next message is no text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Ok(Some(Message::Text(text))) => text.to_string(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// Waits until the server closes the WebSocket, and returns the reason.
    ///
    /// # Panics
    ///
    /// When the server sends a message, or gives no reason.
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
    /// When the connection breaks.
    pub async fn close(mut self) {
        self.0.close(None).await.expect("the server reads");
        while self.next().await.expect("the server closes").is_some() {}
    }
}
