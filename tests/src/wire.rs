//! A connection for raw bytes, for tests of what no client library would send.

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
    /// The bytes that were read, but not returned yet.
    read: Vec<u8>,
}

impl Wire {
    /// Opens a connection.
    ///
    /// # Panics
    ///
    /// When nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Panics
    ///
    /// When the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(
            "the peer takes bytes",
            self.stream.write_all(bytes.as_ref()),
        )
        .await
        .expect("the peer reads");
    }

    /// Returns everything up to `end`, which is included.
    ///
    /// # Panics
    ///
    /// When the server closes the connection before `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                return text(std::mem::replace(&mut self.read, rest));
            }
            assert!(
                self.more().await,
                "the peer closed before {end:?}: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Returns the head of the next response.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Returns the next response, whose head must have its length. For a response without a body,
    /// use [`head`](Self::head).
    ///
    /// # Panics
    ///
    /// When the head has no length.
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
        while self.read.len() < len {
            assert!(
                self.more().await,
                "the peer closed within a body of {len} bytes"
            );
        }
        let rest = self.read.split_off(len);
        (head, text(std::mem::replace(&mut self.read, rest)))
    }

    /// Returns everything until the server closes the connection. A reset counts as a close,
    /// because the server may send it when bytes of the test arrive after its close.
    pub async fn rest(&mut self) -> String {
        text(self.rest_bytes().await)
    }

    /// Returns the same as [`rest`](Self::rest), as bytes.
    pub async fn rest_bytes(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Returns the stream, for everything that the other functions do not do.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads some bytes. Returns false at the end of the stream.
    async fn more(&mut self) -> bool {
        let read = within(
            "the peer sends bytes, or closes",
            self.stream.read_buf(&mut self.read),
        )
        .await;
        read.is_ok_and(|len| len > 0)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
