//! Closes a connection of HTTP/1 in stages while the client may still be sending (RFC 9112, section 9.6).
//!
//! The system resets a connection that is closed while it has unread bytes, or that receives bytes after it was
//! closed. The client may then lose a response that it has not read yet, such as a 413 or a 401. The server therefore
//! closes only its sending side first, and then reads and discards bytes for a limited time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_util::sync::CancellationToken;

/// Sends a complete response, closes the sending side, and then lingers (see [`linger`]).
///
/// # Errors
///
/// When the connection fails, or the client does not read the response in time.
pub(super) async fn respond_and_linger(
    stream: &mut TcpStream,
    response: &[u8],
    stop: &CancellationToken,
) -> io::Result<()> {
    let send = async {
        stream.write_all(response).await?;
        stream.shutdown().await
    };
    time::timeout(STALL_TIMEOUT, send).await??;
    linger(stream, true, stop).await;
    Ok(())
}

/// Reads and discards the bytes that a client still sends. The server's sending side must be closed already.
///
/// `is_sending` is true if the client is known to be sending. Otherwise the function returns at once, unless the
/// socket has unread bytes.
pub(super) async fn linger(stream: &mut TcpStream, is_sending: bool, stop: &CancellationToken) {
    // On the heap, because a local array would be a part of the future of every connection, from its beginning.
    let mut discarded = vec![0; 4096];
    // Unread bytes in the socket also show that the client is sending.
    if !is_sending && !matches!(stream.try_read(&mut discarded), Ok(1..)) {
        return;
    }
    // Ends when the client closes its sending side or sends nothing for too long, or the connection fails.
    let discard = async {
        while let Ok(Ok(1..)) = time::timeout(STALL_TIMEOUT, stream.read(&mut discarded)).await {}
    };
    let stopped = async {
        stop.cancelled().await;
        time::sleep(STOPPING_LINGER_TIMEOUT).await;
    };
    tokio::select! {
        () = discard => {}
        () = stopped => {}
        () = time::sleep(LINGER_TIMEOUT) => {}
    }
}

/// How long a client may send bytes after the last response. The value is nginx's default of `lingering_time`. Some
/// clients read the response only after they have sent the whole body, and need this time. Other clients never stop
/// sending, and are disconnected after this time.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may send nothing while the server lingers. The value is nginx's default of `lingering_timeout`.
/// The client has the same time to read the response of [`respond_and_linger`].
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may send bytes after the server began to stop. Replaces [`LINGER_TIMEOUT`] then.
const STOPPING_LINGER_TIMEOUT: Duration = Duration::from_secs(2);
