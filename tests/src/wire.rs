//! A connection without a client: bytes as they are, for what no client would send.

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
    /// Read, but not yet returned.
    read: Vec<u8>,
}

impl Wire {
    /// Connects.
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
    /// When the peer has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(
            "the peer takes bytes",
            self.stream.write_all(bytes.as_ref()),
        )
        .await
        .expect("the peer reads");
    }

    /// Everything up to and with `end`.
    ///
    /// # Panics
    ///
    /// When the peer closes before.
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

    /// The next response's head.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// The next response, whose head tells its length; what comes without a body needs [`head`](Self::head).
    ///
    /// # Panics
    ///
    /// When it does not.
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

    /// Everything up to the peer's end of the connection. A reset counts as one: bytes may have crossed it.
    pub async fn rest(&mut self) -> String {
        text(self.rest_bytes().await)
    }

    /// The same, as bytes.
    pub async fn rest_bytes(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// The stream, for what the other functions do not do.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads some bytes; none are left when this is false.
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
