//! Which protocol a client speaks, by the first bytes of its connection.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time};

/// What a client speaks, whose first bytes are there.
pub(super) async fn speaks(stream: &TcpStream) -> io::Result<Speaks> {
    let mut bytes = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let count = stream.peek(&mut bytes).await?;
        if count == PREFACE.len() && bytes == *PREFACE {
            return Ok(Speaks::Http2);
        }
        if count == 0 || !PREFACE.starts_with(&bytes[..count]) {
            return Ok(Speaks::Http1);
        }
        // The bytes that are there would be reported again at once.
        time::sleep(pause).await;
        pause = (2 * pause).min(Duration::from_millis(256));
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// What starts a connection in HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
