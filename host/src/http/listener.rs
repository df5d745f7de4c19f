//! Accepts connections from the listening sockets, up to the limits on connections and file descriptors.

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

/// Accepts connections from all `listeners` until `leave` is cancelled. `server` serves each connection in a task of
/// `connections`.
///
/// If `stop` is also cancelled at that time, no other worker accepts from these sockets. The function then also serves
/// the connections that are still in the kernel's queues.
///
/// `permits` has one permit for each connection that may be open. While no permit is free, new connections wait in the
/// kernel's queue. One loop accepts from all listeners, because a separate loop for each listener would hold a permit
/// while the loop waits for a connection.
pub async fn accept(
    listeners: Vec<TcpListener>,
    server: Arc<ConnectionServer>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let serve = |stream: TcpStream, peer, permit| {
        // Nagle's algorithm is turned off: the server writes complete messages, and a delay would gain nothing.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "Cannot set TCP_NODELAY");
        }
        connections.spawn(Arc::clone(&server).serve(stream, peer, permit));
    };
    let accept_loop = async {
        let mut shortage = Shortage::new("connections");
        let mut next_index = 0;
        loop {
            // Never fails, because the semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (stream, peer) = accept_next(&listeners, &mut next_index, &mut shortage).await;
            // A connection with a reserved descriptor is served too. The loop waits before it accepts the next one.
            let is_reserved = stream.as_raw_fd() as u64 >= first_reserved_descriptor();
            serve(stream, peer, permit);
            if is_reserved {
                wait_for_descriptors(&listeners, &connections).await;
            }
        }
    };
    leave.run_until_cancelled(accept_loop).await;
    if !stop.is_cancelled() {
        return;
    }
    // The clients of queued connections may have sent requests already, and the kernel would reset these connections
    // when the listeners are closed. The listeners are converted to std's type, whose `accept` needs no runtime and
    // returns `WouldBlock` when a queue is empty.
    let queues = listeners
        .into_iter()
        .filter_map(|listener| listener.into_std().ok());
    let queued = queues.flat_map(|listener| iter::from_fn(move || listener.accept().ok()));
    for (stream, peer) in queued {
        let stream = stream
            .set_nonblocking(true)
            .map(|()| TcpStream::from_std(stream));
        // Queued connections without a free permit are closed without a response.
        if let (Ok(Ok(stream)), Ok(permit)) = (stream, Arc::clone(&permits).try_acquire_owned()) {
            serve(stream, peer, permit);
        }
    }
}

/// Accepts the next connection from any listener. Waits while the system is out of file descriptors or memory.
async fn accept_next(
    listeners: &[TcpListener],
    next_index: &mut usize,
    shortage: &mut Shortage,
) -> (TcpStream, SocketAddr) {
    loop {
        match poll_fn(|context| poll_accept(listeners, next_index, context)).await {
            Ok(accepted) => {
                shortage.end();
                return accepted;
            }
            // accept(2) also returns network errors of the new connection, for example if its client has left.
            Err(error) if is_connection_error(&error) => {
                debug!(%error, "A connection failed before it was accepted");
            }
            // The system is out of file descriptors or memory. The wait keeps the loop from spinning.
            Err(error) => shortage.wait(&error).await,
        }
    }
}

/// Polls the listeners, starting at `next_index`. After a listener returned a connection, `next_index` is the index of
/// the following listener. A busy listener therefore cannot starve the others.
fn poll_accept(
    listeners: &[TcpListener],
    next_index: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    for offset in 0..listeners.len() {
        let index = (*next_index + offset) % listeners.len();
        if let Poll::Ready(accepted) = listeners[index].poll_accept(context) {
            *next_index = index + 1;
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

/// Returns whether an error of accept(2) belongs to the new connection, not to the listener.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Waits until a file descriptor is free that is not reserved. New connections wait in the kernel's queue meanwhile.
async fn wait_for_descriptors(listeners: &[TcpListener], connections: &TaskTracker) {
    let Some(listener) = listeners.first() else {
        return;
    };
    // A new descriptor has the lowest free number (dup(2)). A duplicate therefore gets the number that the next
    // connection would get.
    let has_free_descriptor = || {
        let free = fcntl_dupfd_cloexec(listener.as_fd(), 0);
        free.is_ok_and(|free| (free.as_raw_fd() as u64) < first_reserved_descriptor())
    };
    if has_free_descriptor() {
        return;
    }
    // The counts below leave one task out: the accept loop itself.
    let started = Instant::now();
    warn!(
        connections = connections.len().saturating_sub(1),
        limit = getrlimit(Resource::Nofile).current,
        reserved = RESERVED_DESCRIPTORS,
        "Nearly out of file descriptors (ulimit -n), new connections wait"
    );
    while !has_free_descriptor() {
        time::sleep(POLL_INTERVAL).await;
    }
    info!(
        took = ?started.elapsed(),
        connections = connections.len().saturating_sub(1),
        "File descriptors are free again, accepting connections"
    );
}

/// Returns the lowest number of the reserved file descriptors. The limit of the process is read at each call, because
/// an operator can change it while the process runs (prlimit(1)).
fn first_reserved_descriptor() -> u64 {
    match getrlimit(Resource::Nofile).current {
        Some(limit) => limit - RESERVED_DESCRIPTORS.min(limit / 2),
        None => u64::MAX,
    }
}

/// The number of file descriptors that are reserved for the control socket, the loading of plugins and log files. Under
/// a low limit, half of all descriptors are reserved.
const RESERVED_DESCRIPTORS: u64 = 64;

/// How long to wait between two checks for free file descriptors.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
