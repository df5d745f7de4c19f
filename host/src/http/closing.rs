//! How a connection of HTTP/1 is closed while its client may still be sending: in stages (RFC 9112,
//! section 9.6).
//!
//! When a socket is closed with unread bytes, or bytes come afterwards, the system resets the connection.
//! The client may then lose a response that it has not read yet, such as a 413 or a 401. So the sending
//! side is closed first, and bytes that still come are read and thrown away, for a limited time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_util::sync::CancellationToken;

/// Sends `answer`, closes the sending side, and then reads what the client still sends.
///
/// # Errors
///
/// When the connection fails, or the client does not take the answer in time.
pub(super) async fn answer(
    stream: &mut TcpStream,
    answer: &[u8],
    stop: &CancellationToken,
) -> io::Result<()> {
    let send = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    time::timeout(READ_TIMEOUT, send).await??;
    linger(stream, true, stop).await;
    Ok(())
}

/// Reads and throws away what a client still sends. The server's sending side must be closed already.
///
/// `is_sending` says that the client is known to be sending. If it is false, this returns at once unless
/// unread bytes are there.
pub(super) async fn linger(stream: &mut TcpStream, is_sending: bool, stop: &CancellationToken) {
    // On the heap, because a local array would make the future of every connection that much larger, for
    // as long as the connection is open.
    let mut unread = vec![0; 4096];
    // Bytes that are there already also mean that the client is sending.
    if !is_sending && !matches!(stream.try_read(&mut unread), Ok(1..)) {
        return;
    }
    let drain = async {
        while let Ok(Ok(1..)) = time::timeout(READ_TIMEOUT, stream.read(&mut unread)).await {}
    };
    let stopped = async {
        stop.cancelled().await;
        time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        () = drain => {}
        () = stopped => {}
        () = time::sleep(TOTAL_TIMEOUT) => {}
    }
}

/// How long a client may go on sending after the last response. This and [`READ_TIMEOUT`] are nginx's
/// `lingering_time` and `lingering_timeout`. Some clients read the response only after they have sent a
/// whole body, and have time for that. Others never stop, and are cut off.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the client may send nothing meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may go on sending once the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
