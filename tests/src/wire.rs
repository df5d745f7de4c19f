//! A TCP client for raw bytes, for tests with bytes that no HTTP client would send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::within;

/// A TCP connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// The bytes that were received, but not returned yet.
    received: Vec<u8>,
}

impl Wire {
    /// Opens a connection.
    ///
    /// # Panics
    ///
    /// Panics if the server does not accept the connection.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Panics
    ///
    /// Panics if the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(
            "the peer takes bytes",
            self.stream.write_all(bytes.as_ref()),
        )
        .await
        .expect("the peer reads");
    }

    /// Returns all bytes up to and including the text `end`.
    ///
    /// # Panics
    ///
    /// Panics if the server closes the connection before `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let position = self
                .received
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(position) = position {
                let rest = self.received.split_off(position + end.len());
                return text(std::mem::replace(&mut self.received, rest));
            }
            assert!(
                self.receive().await,
                "the peer closed before {end:?}: {:?}",
                String::from_utf8_lossy(&self.received)
            );
        }
    }

    /// Returns the head of the next response.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Returns the head and the body of the next response. The head must have a `content-length`. For a response
    /// without a body, use [`head`](Self::head).
    ///
    /// # Panics
    ///
    /// Panics if the head has no `content-length`.
    pub async fn response(&mut self) -> (String, String) {
        let head = self.head().await;
        let lower = head.to_ascii_lowercase();
        let len = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let len: usize = len
            .and_then(|len| len.parse().ok())
            .unwrap_or_else(|| panic!("no length in {head:?}"));
        while self.received.len() < len {
            assert!(
                self.receive().await,
                "the peer closed within a body of {len} bytes"
            );
        }
        let rest = self.received.split_off(len);
        (head, text(std::mem::replace(&mut self.received, rest)))
    }

    /// Returns all bytes until the server closes the connection. A reset counts as a close, because the system of the
    /// server sends a reset if bytes of the test arrive after the close.
    pub async fn rest(&mut self) -> String {
        text(self.rest_bytes().await)
    }

    /// Returns the same as [`rest`](Self::rest), as bytes.
    pub async fn rest_bytes(&mut self) -> Vec<u8> {
        while self.receive().await {}
        std::mem::take(&mut self.received)
    }

    /// Returns the TCP stream, for operations that this type does not have.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Waits for bytes, and appends them to `received`. Returns false at the end of the stream, or after a reset.
    async fn receive(&mut self) -> bool {
        let result = within(
            "the peer sends bytes, or closes",
            self.stream.read_buf(&mut self.received),
        )
        .await;
        result.is_ok_and(|len| len > 0)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
