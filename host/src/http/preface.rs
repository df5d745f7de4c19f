//! Detects the version of HTTP from the first bytes of a connection.

use std::io;

use tokio::{
    io::{AsyncReadExt, ReadBuf},
    net::TcpStream,
};

/// The first bytes of a connection, read to detect the protocol. The [`Socket`] passes them to hyper before all other
/// bytes.
///
/// [`Socket`]: super::socket::Socket
#[derive(Debug, Default)]
pub struct Preface {
    bytes: [u8; HTTP2_PREFACE.len()],
    /// The number of bytes that were read from the connection.
    len: u8,
    /// The number of these bytes that hyper has read.
    passed_on: u8,
}

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpProtocol {
    Http1,
    Http2,
}

impl Preface {
    /// Reads more bytes. Returns the protocol, or `None` if the bytes may still become the preface of HTTP/2. A client
    /// that closes its sending side before the protocol is clear is treated as a client of HTTP/1.
    ///
    /// The future can be dropped without losing bytes.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub(super) async fn read(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<Option<HttpProtocol>> {
        let read = stream.read(&mut self.bytes[self.len.into()..]).await?;
        // The cast cannot truncate, because the buffer has 24 bytes.
        self.len += read as u8;
        let bytes = &self.bytes[..self.len.into()];
        Ok(if bytes == HTTP2_PREFACE {
            Some(HttpProtocol::Http2)
        } else if read == 0 || !HTTP2_PREFACE.starts_with(bytes) {
            Some(HttpProtocol::Http1)
        } else {
            None
        })
    }

    /// Returns whether no byte was read yet.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves the bytes that hyper has not read yet to `buffer`, as many as fit.
    pub(super) fn move_to(&mut self, buffer: &mut ReadBuf<'_>) {
        if self.passed_on == self.len {
            return;
        }
        let rest = &self.bytes[self.passed_on.into()..self.len.into()];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.passed_on += count as u8;
    }
}

/// The connection preface of HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 begins with these bytes.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
