//! Accepts connections from the listening sockets, as many as the limits allow.

use std::{
    future::poll_fn,
    io, iter,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, getrlimit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::connection::ConnectionServer;
use crate::shortage::Shortage;

/// Accepts connections from all `listeners` until `leave` is cancelled. Each connection is served by `server` on
/// a task of `connections`.
///
/// If `stop` is cancelled as well by then, no other worker accepts from these sockets. Then the connections that
/// are still in the kernel's queues are also served.
///
/// `permits` has one permit for each connection that may be open. Without a permit, the next connection
/// waits in the kernel's queue. One loop accepts from all listeners, because a loop for each listener would
/// hold a permit of its own while it waits.
pub async fn accept(
    listeners: Vec<TcpListener>,
    server: Arc<ConnectionServer>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let serve = |stream: TcpStream, peer, permit| {
        // The server writes complete messages, so that a delay to collect more bytes gains nothing.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "Cannot set TCP_NODELAY");
        }
        connections.spawn(Arc::clone(&server).serve(stream, peer, permit));
    };
    let accept = async {
        let mut shortage = Shortage::new("connections");
        let mut first = 0;
        loop {
            // Fails only when the semaphore is closed, which never happens.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (stream, peer) = next(&listeners, &mut first, &mut shortage).await;
            // A connection that takes a reserved descriptor is served. Only the next one has to wait.
            let is_reserved = stream.as_raw_fd() as u64 >= ceiling();
            serve(stream, peer, permit);
            if is_reserved {
                wait_for_descriptors(&listeners, &connections).await;
            }
        }
    };
    leave.run_until_cancelled(accept).await;
    if !stop.is_cancelled() {
        return;
    }
    // The client of a queued connection may have sent a request already. Closing the listener would reset
    // that connection.
    // As std's listeners, which return `WouldBlock` when a queue is empty and need no runtime.
    let queues = listeners
        .into_iter()
        .filter_map(|listener| listener.into_std().ok());
    let queued = queues.flat_map(|listener| iter::from_fn(move || listener.accept().ok()));
    for (stream, peer) in queued {
        let stream = stream
            .set_nonblocking(true)
            .map(|()| TcpStream::from_std(stream));
        if let (Ok(Ok(stream)), Ok(permit)) = (stream, Arc::clone(&permits).try_acquire_owned()) {
            serve(stream, peer, permit);
        }
    }
}

/// Accepts the next connection from any listener. Waits while the system has no room for one.
async fn next(
    listeners: &[TcpListener],
    first: &mut usize,
    shortage: &mut Shortage,
) -> (TcpStream, SocketAddr) {
    loop {
        match poll_fn(|context| poll_accept(listeners, first, context)).await {
            Ok(accepted) => {
                shortage.over();
                return accepted;
            }
            // accept(2) also returns network errors of the new connection: its client is gone already.
            Err(error) if is_connection_error(&error) => {
                debug!(%error, "A connection failed before it was accepted");
            }
            // The system is out of file descriptors or memory. Trying again at once would spin.
            Err(error) => shortage.wait(&error).await,
        }
    }
}

/// Polls the listeners, starting at the index `first`. When a listener has a connection, `first` becomes the
/// index behind it. So a listener that always has a connection does not keep the others waiting.
fn poll_accept(
    listeners: &[TcpListener],
    first: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    for offset in 0..listeners.len() {
        let index = (*first + offset) % listeners.len();
        if let Poll::Ready(accepted) = listeners[index].poll_accept(context) {
            *first = index + 1;
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

/// Whether an error belongs to the accepted connection, not to the listener.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Waits until the next connection would not get one of the file descriptors that are reserved for the
/// operator. Clients wait in the kernel's queue meanwhile.
async fn wait_for_descriptors(listeners: &[TcpListener], connections: &TaskTracker) {
    let Some(listener) = listeners.first() else {
        return;
    };
    // The system gives out the lowest free number (dup(2)), so that the number of a new descriptor shows
    // how many are in use.
    let has_room = || {
        let free = fcntl_dupfd_cloexec(listener.as_fd(), 0);
        free.is_ok_and(|free| (free.as_raw_fd() as u64) < ceiling())
    };
    if has_room() {
        return;
    }
    let began = Instant::now();
    warn!(
        connections = connections.len().saturating_sub(1),
        limit = getrlimit(Resource::Nofile).current,
        reserved = RESERVED,
        "Nearly out of file descriptors (ulimit -n), new connections wait"
    );
    while !has_room() {
        time::sleep(POLL_INTERVAL).await;
    }
    info!(
        took = ?began.elapsed(),
        connections = connections.len().saturating_sub(1),
        "There are file descriptors again, connections are accepted"
    );
}

/// Returns the lowest number of the reserved file descriptors. The limit is read each time, because an
/// operator can change it from outside (prlimit(1)).
fn ceiling() -> u64 {
    match getrlimit(Resource::Nofile).current {
        Some(limit) => limit - RESERVED.min(limit / 2),
        None => u64::MAX,
    }
}

/// How many file descriptors connections leave free for the control socket, the loading of plugins and log
/// files. When the limit is low, they leave half of all.
const RESERVED: u64 = 64;

/// How long to wait before the next look for free file descriptors.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
