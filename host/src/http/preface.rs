//! Which protocol a client speaks, by the first bytes of its connection.

use std::io;

use tokio::{
    io::{AsyncReadExt, ReadBuf},
    net::TcpStream,
};

/// The first bytes of a connection, which were read to find out its protocol. Its socket gives them to
/// hyper before any others.
#[derive(Debug, Default)]
pub struct Preface {
    bytes: [u8; PREFACE.len()],
    len: u8,
    given: u8,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpProtocol {
    Http1,
    Http2,
}

impl Preface {
    /// Reads some bytes. The protocol, once they tell; a client that closes its side speaks HTTP/1.
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub(super) async fn read(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<Option<HttpProtocol>> {
        let read = stream.read(&mut self.bytes[self.len.into()..]).await?;
        // At most as many as there is room for.
        self.len += read as u8;
        let bytes = &self.bytes[..self.len.into()];
        Ok(if bytes == PREFACE {
            Some(HttpProtocol::Http2)
        } else if read == 0 || !PREFACE.starts_with(bytes) {
            Some(HttpProtocol::Http1)
        } else {
            None
        })
    }

    /// Whether no byte has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the bytes that have not been given yet, as many as there is room for.
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        if self.given == self.len {
            return;
        }
        let rest = &self.bytes[self.given.into()..self.len.into()];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.given += count as u8;
    }
}

/// What starts a connection in HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 starts with it.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
