//! How a connection of HTTP/1 is closed while its client may still be sending: in stages (RFC 9112,
//! section 9.6).
//!
//! A socket that is closed with unread bytes, or that gets bytes afterwards, resets the connection, and
//! then the client may lose a response that it has not read yet: a 413 or 401, for instance. So the
//! sending side is closed first, and what comes is read and thrown away, for a limited time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_util::sync::CancellationToken;

/// Sends `answer`, closes the sending side, and takes in what the client still sends.
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
    time::timeout(BETWEEN_READS, send).await??;
    linger(stream, true, stop).await;
    Ok(())
}

/// Takes in what a client still sends, whose sending side is known to be in use when `is_sending` is
/// true, and else when some bytes are there. The server's sending side is closed already.
pub(super) async fn linger(stream: &mut TcpStream, is_sending: bool, stop: &CancellationToken) {
    // On the heap, because the future is as large as its largest local for as long as the connection
    // is there.
    let mut unread = vec![0; 4096];
    if !is_sending && !matches!(stream.try_read(&mut unread), Ok(1..)) {
        return;
    }
    let drain = async {
        while let Ok(Ok(1..)) = time::timeout(BETWEEN_READS, stream.read(&mut unread)).await {}
    };
    let stopped = async {
        stop.cancelled().await;
        time::sleep(AFTER_STOP).await;
    };
    tokio::select! {
        () = drain => {}
        () = stopped => {}
        () = time::sleep(IN_TOTAL) => {}
    }
}

/// How long a client may go on sending after the last response. This and [`BETWEEN_READS`] are nginx's
/// `lingering_time` and `lingering_timeout`: enough for clients that read the response only after they
/// have sent all of a body, and an end for those that never do.
const IN_TOTAL: Duration = Duration::from_secs(30);

/// How long the client may send nothing meanwhile.
const BETWEEN_READS: Duration = Duration::from_secs(5);

/// How long a client may go on sending when the server stops, which must not wait for it.
const AFTER_STOP: Duration = Duration::from_secs(2);
