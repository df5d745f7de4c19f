//! Accepts the connections of a worker when the supervisor orders so, and ends the connections when the worker stops.

use std::{net::TcpListener, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::Semaphore, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    config::ClientLimits,
    http::{connection::ConnectionServer, dispatch::Dispatch, listener},
};

/// The connections of a worker.
#[derive(Debug)]
pub struct Serving {
    /// The listening sockets. Empty after [`accept`](Self::accept).
    listeners: Vec<TcpListener>,
    /// The runtime in which connections are served.
    runtime: Handle,
    server: Arc<ConnectionServer>,
    /// One permit for each connection that may be open.
    permits: Arc<Semaphore>,
    /// The tasks that serve connections, and the task that accepts connections.
    connections: TaskTracker,
    /// The number of tasks in `connections` that accept connections: 0 or 1.
    accept_tasks: usize,
    tokens: ConnectionTokens,
}

/// The tokens that end the connections of a worker. A stop cancels them in this order.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTokens {
    /// Cancelled when the worker must accept no more connections.
    pub stop_accepting: CancellationToken,
    /// Cancelled when each connection must end after its requests in flight have ended.
    pub stop: CancellationToken,
    /// Cancelled when all connections must end at once.
    pub abort: CancellationToken,
}

impl Serving {
    /// Creates a server that will accept connections from `listeners` and serve them in `runtime`.
    #[must_use]
    pub fn new(
        listeners: Vec<TcpListener>,
        runtime: Handle,
        dispatch: Dispatch,
        limits: &ClientLimits,
        tokens: ConnectionTokens,
    ) -> Self {
        let server = ConnectionServer::new(
            limits.clone(),
            Arc::new(dispatch),
            tokens.stop.clone(),
            tokens.abort.clone(),
        );
        Self {
            listeners,
            runtime,
            server: Arc::new(server),
            permits: Arc::new(Semaphore::new(limits.max_connections as usize)),
            connections: TaskTracker::new(),
            accept_tasks: 0,
            tokens,
        }
    }

    /// Starts a task that accepts connections.
    pub fn accept(&mut self) {
        // The serving runtime must own the sockets, because tokio registers a socket with the runtime in which the
        // socket is created.
        let _serving = self.runtime.enter();
        let listeners = self.listeners.drain(..).filter_map(|listener| {
            tokio::net::TcpListener::from_std(listener)
                .inspect_err(|error| error!(%error, "Cannot accept connections on a socket"))
                .ok()
        });
        let accept = listener::accept(
            listeners.collect(),
            Arc::clone(&self.server),
            Arc::clone(&self.permits),
            self.connections.clone(),
            self.tokens.stop_accepting.clone(),
            self.tokens.stop.clone(),
        );
        self.connections.spawn_on(accept, &self.runtime);
        self.accept_tasks = 1;
        // `TaskTracker::wait` returns only for a closed tracker. A closed tracker still accepts new tasks.
        self.connections.close();
    }

    /// Accepts no more connections, and begins to end each open connection after its requests are answered. Connections
    /// that have not ended after `timeout` are aborted.
    ///
    /// `is_shared` means that other workers accept from the same sockets. An idle connection then stays open for a
    /// moment, and a request that arrives in this time is answered with `connection: close`. Without this delay, a
    /// client that is just sending a request would lose the request.
    pub fn close(&self, timeout: Duration, is_shared: bool) -> ClosingConnections {
        // The task that accepts is in the same tracker, but is no connection.
        let open = self.connections.len().saturating_sub(self.accept_tasks);
        info!(connections = open, "Finishing what is in flight");
        if is_shared {
            self.server.ask_to_close();
        } else {
            self.tokens.stop.cancel();
        }
        // Cancelled after `stop`, because the task that accepts checks at this moment whether `stop` is cancelled too.
        self.tokens.stop_accepting.cancel();
        self.connections.close();
        ClosingConnections {
            connections: self.connections.clone(),
            tokens: self.tokens.clone(),
            readers: self.server.readers().clone(),
            timeout,
        }
    }
}

/// The connections of a worker that is stopping.
#[derive(Clone, Debug)]
pub struct ClosingConnections {
    connections: TaskTracker,
    tokens: ConnectionTokens,
    /// The connections that may still read another request.
    readers: TaskTracker,
    timeout: Duration,
}

impl ClosingConnections {
    /// Waits until the last connection has ended. Aborts the connections that are still open after the timeout.
    pub async fn wait_closed(self) {
        let Self {
            connections,
            tokens,
            timeout,
            ..
        } = self;
        let all_closed = async {
            // An idle connection stays open until `stop` is cancelled, so that a client that is just sending a request
            // does not lose the request. `stop` is cancelled already if no other worker accepts from the same sockets.
            let delay = tokens.stop.run_until_cancelled(time::sleep(CLOSE_DELAY));
            tokio::select! {
                _ = delay => {}
                () = connections.wait() => {}
            }
            tokens.stop.cancel();
            connections.wait().await;
        };
        if time::timeout(timeout, all_closed).await.is_err() {
            warn!(
                connections = connections.len(),
                "Cutting off connections that did not end in time"
            );
            tokens.stop.cancel();
            tokens.abort.cancel();
            // The result is ignored, because a connection whose thread is blocked by an app cannot be ended at all.
            let _ = time::timeout(ABORT_GRACE, connections.wait()).await;
        }
    }

    /// Waits until no connection can bring another request. The requests that arrived before may still be in flight.
    pub async fn all_requests_read(self) {
        self.tokens.stop.cancelled().await;
        self.readers.close();
        self.readers.wait().await;
    }
}

/// How long an idle connection stays open when another worker takes over. A client that sends requests more often gets
/// a response with `connection: close` in this time, and loses no request.
const CLOSE_DELAY: Duration = Duration::from_millis(500);

/// How long the worker waits for aborted connections to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);
