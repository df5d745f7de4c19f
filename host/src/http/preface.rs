//! Which protocol a client speaks, by the first bytes of its connection.

use std::io;

use tokio::{
    io::{AsyncReadExt, ReadBuf},
    net::TcpStream,
};

/// The first bytes of a connection. They were read to find out the protocol, and the [`Socket`] gives them
/// to hyper before any others.
///
/// [`Socket`]: super::socket::Socket
#[derive(Debug, Default)]
pub struct Preface {
    bytes: [u8; PREFACE.len()],
    /// How many bytes have been read.
    len: u8,
    /// How many of them hyper has got.
    given: u8,
}

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpProtocol {
    Http1,
    Http2,
}

impl Preface {
    /// Reads more bytes. Returns the protocol once the bytes tell it, and None while they do not. A client
    /// that closes its sending side before speaks HTTP/1.
    ///
    /// Dropping the future loses no bytes.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub(super) async fn read(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<Option<HttpProtocol>> {
        let read = stream.read(&mut self.bytes[self.len.into()..]).await?;
        // Fits: the buffer has 24 bytes.
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

    /// Moves bytes that hyper has not got yet into `buffer`, as many as fit.
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

/// The preface of HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 begins with these bytes.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
