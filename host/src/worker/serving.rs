//! The connections of a worker: accepted on an order of the supervisor, and ended at a stop.

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
    listeners: Vec<TcpListener>,
    threads: Handle,
    server: Arc<ConnectionServer>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    /// The number of tasks in `connections` that accept and serve no connection.
    accepting: usize,
    tokens: Tokens,
}

/// The tokens that end connections, in this order.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Cancelled when no more connections are to be accepted.
    pub leave: CancellationToken,
    /// Cancelled when connections are to end once their requests have.
    pub stop: CancellationToken,
    /// Cancelled when connections are to end at once.
    pub abort: CancellationToken,
}

impl Serving {
    /// Creates the server of connections from `listeners`, which runs on `threads`.
    #[must_use]
    pub fn new(
        listeners: Vec<TcpListener>,
        threads: Handle,
        dispatch: Dispatch,
        limits: &ClientLimits,
        tokens: Tokens,
    ) -> Self {
        let server = ConnectionServer::new(
            limits.clone(),
            Arc::new(dispatch),
            tokens.stop.clone(),
            tokens.abort.clone(),
        );
        Self {
            listeners,
            threads,
            server: Arc::new(server),
            permits: Arc::new(Semaphore::new(limits.max_connections as usize)),
            connections: TaskTracker::new(),
            accepting: 0,
            tokens,
        }
    }

    /// Begins to accept connections.
    pub fn accept(&mut self) {
        // The serving runtime must own the sockets: tokio registers a socket with the runtime in
        // which it is made.
        let _serving = self.threads.enter();
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
            self.tokens.leave.clone(),
            self.tokens.stop.clone(),
        );
        self.connections.spawn_on(accept, &self.threads);
        self.accepting = 1;
        self.connections.close();
    }

    /// Accepts no more, and ends the connections once their requests are answered. What has not ended
    /// after `timeout` is cut off.
    ///
    /// `is_shared` says that other workers accept from the same sockets. A connection that waits for a
    /// request then stays open for a moment, and a request that comes is answered with
    /// `connection: close`: a client that was sending it would otherwise lose it.
    pub fn close(&self, timeout: Duration, is_shared: bool) -> Closing {
        let open = self.connections.len().saturating_sub(self.accepting);
        info!(connections = open, "Finishing what is in flight");
        if is_shared {
            self.server.ask_to_close();
        } else {
            self.tokens.stop.cancel();
        }
        self.tokens.leave.cancel();
        self.connections.close();
        Closing {
            connections: self.connections.clone(),
            tokens: self.tokens.clone(),
            readers: self.server.readers().clone(),
            timeout,
        }
    }

    /// Ends accepting and waiting for requests for good.
    pub fn closed(&self) {
        self.tokens.leave.cancel();
        self.tokens.stop.cancel();
    }
}

/// Connections that are about to end.
#[derive(Clone, Debug)]
pub struct Closing {
    connections: TaskTracker,
    tokens: Tokens,
    readers: TaskTracker,
    timeout: Duration,
}

impl Closing {
    /// Returns when the last connection has ended. Those that are left after the timeout are aborted.
    pub async fn ended(self) {
        let Self {
            connections,
            tokens,
            timeout,
            ..
        } = self;
        let ended = async {
            let delay = tokens.stop.run_until_cancelled(time::sleep(CLOSE_DELAY));
            tokio::select! {
                _ = delay => {}
                () = connections.wait() => {}
            }
            tokens.stop.cancel();
            connections.wait().await;
        };
        if time::timeout(timeout, ended).await.is_err() {
            warn!(
                connections = connections.len(),
                "Cutting off connections that did not end in time"
            );
            tokens.stop.cancel();
            tokens.abort.cancel();
            let _ = time::timeout(ABORT_GRACE, connections.wait()).await;
        }
    }

    /// Returns when no connection reads another request. The requests that came before may still be in
    /// flight.
    pub async fn all_requests_read(self) {
        self.tokens.stop.cancelled().await;
        self.readers.close();
        self.readers.wait().await;
    }
}

/// How long a connection without a request stays open when another worker takes over. A client that
/// sends requests more often than that is told to go by a response, and loses none.
const CLOSE_DELAY: Duration = Duration::from_millis(500);

/// How long aborted connections have to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);
