//! The listening sockets: accepts connections, as many as there is room for.

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

/// Accepts connections on all of `listeners` and serves each on a task of `connections`, until `leave`
/// is cancelled. When `stop` is cancelled as well, no other worker accepts from these sockets, and the
/// connections in the kernel's queues are served, too.
///
/// `permits` is one for each connection that may be open; the next one waits in the kernel's queue
/// until one ends. There is one loop for all listeners, so that one permit is enough for the next
/// connection, whichever listener it comes to.
pub async fn accept(
    listeners: Vec<TcpListener>,
    server: Arc<ConnectionServer>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let serve = |stream: TcpStream, peer, permit| {
        // Small writes are complete messages here: waiting for more of them only delays.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "Cannot set TCP_NODELAY");
        }
        connections.spawn(Arc::clone(&server).serve(stream, peer, permit));
    };
    let accept = async {
        let mut shortage = Shortage::new("connections");
        let mut first = 0;
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (stream, peer) = next(&listeners, &mut first, &mut shortage).await;
            let is_reserved = stream.as_raw_fd() as u64 >= ceiling();
            serve(stream, peer, permit);
            if is_reserved {
                until_room(&listeners, &connections).await;
            }
        }
    };
    leave.run_until_cancelled(accept).await;
    if !stop.is_cancelled() {
        return;
    }
    // A client in the kernel's queue may have sent a request, and would be reset.
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

/// The next connection of any listener.
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
            // The client was gone before it was accepted (accept(2) passes on what the network says).
            Err(error) if is_of_the_connection(&error) => {
                debug!(%error, "A connection failed before it was accepted");
            }
            // Out of file descriptors or memory: trying again at once would spin.
            Err(error) => shortage.wait(&error).await,
        }
    }
}

/// Polls the listeners, beginning with the one behind that which had a connection last: one that always
/// has must not keep the others waiting.
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

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Waits until the next connection would not get one of the file descriptors that are kept for the
/// operator. Clients wait in the kernel's queue meanwhile.
async fn until_room(listeners: &[TcpListener], connections: &TaskTracker) {
    let Some(listener) = listeners.first() else {
        return;
    };
    // The system gives the lowest number that is free (dup(2)), so the numbers tell how many there are.
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
        time::sleep(BETWEEN_LOOKS).await;
    }
    info!(
        took = ?began.elapsed(),
        connections = connections.len().saturating_sub(1),
        "There are file descriptors again, connections are accepted"
    );
}

/// The number of a file descriptor from which on connections take what is kept for the operator. It is
/// asked for each time, because the limit can be changed from outside (prlimit(1)).
fn ceiling() -> u64 {
    match getrlimit(Resource::Nofile).current {
        Some(limit) => limit - RESERVED.min(limit / 2),
        None => u64::MAX,
    }
}

/// How many file descriptors connections leave for the control socket, the loading of plugins and log
/// files; at most half of all.
const RESERVED: u64 = 64;

/// How long to wait before looking again whether there are file descriptors.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
