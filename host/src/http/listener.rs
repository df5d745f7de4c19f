//! A listening socket: accepts connections, as many as there is room for.

use std::{io, iter, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::connection::Protocol;

/// Accepts connections on `listener` and serves each on a task of `connections`, until `stop` is
/// cancelled. Those that are in the kernel's queue then are served as well.
///
/// `permits` is one for each connection that may be open; the next one waits in the kernel's queue
/// until one ends.
pub async fn accept(
    listener: TcpListener,
    protocol: Arc<Protocol>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let serve = |stream: TcpStream, peer, permit| {
        // Small writes are complete messages here: waiting for more of them only delays.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "Cannot set TCP_NODELAY");
        }
        connections.spawn(Arc::clone(&protocol).serve(stream, peer, permit));
    };
    let accept = async {
        loop {
            // It is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (stream, peer) = next(&listener).await;
            serve(stream, peer, permit);
        }
    };
    stop.run_until_cancelled(accept).await;
    // Who is in the kernel's queue may have sent a request, and would be reset.
    let queue = listener.into_std().into_iter();
    let queued = queue.flat_map(|listener| iter::from_fn(move || listener.accept().ok()));
    for (stream, peer) in queued {
        let stream = stream
            .set_nonblocking(true)
            .map(|()| TcpStream::from_std(stream));
        if let (Ok(Ok(stream)), Ok(permit)) = (stream, Arc::clone(&permits).try_acquire_owned()) {
            serve(stream, peer, permit);
        }
    }
}

async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // It was gone before it was accepted (accept(2) passes on what the network says).
            Err(error) if is_of_the_connection(&error) => {
                debug!(%error, "A connection failed before it was accepted")
            }
            Err(error) => {
                // Out of file descriptors or memory: trying again at once would spin.
                warn!(%error, "Cannot accept connections, trying again");
                time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// How long to wait when the system has no room for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);
