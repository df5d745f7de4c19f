//! The connections of a worker: accepted when the supervisor says so, and ended when it stops.

use std::{future::Future, net::TcpListener, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::Semaphore, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    config::Limits,
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
    /// How many of the tasks of `connections` accept.
    accepting: usize,
    tokens: Tokens,
}

/// What ends connections.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Cancelled when connections are to end once their requests have.
    pub stop: CancellationToken,
    /// Cancelled when connections are to end at once.
    pub cut: CancellationToken,
}

impl Serving {
    /// Connections that come from `listeners` and are served on `threads`.
    #[must_use]
    pub fn new(
        listeners: Vec<TcpListener>,
        threads: Handle,
        dispatch: Dispatch,
        limits: &Limits,
        tokens: Tokens,
    ) -> Self {
        let server = ConnectionServer::new(
            limits.clone(),
            Arc::new(dispatch),
            tokens.stop.clone(),
            tokens.cut.clone(),
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

    /// Accepts connections from now on.
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
            self.tokens.stop.clone(),
        );
        self.connections.spawn_on(accept, &self.threads);
        self.accepting = 1;
        self.connections.close();
    }

    /// Accepts no more. The result is ready when the last connection has ended, or `patience` is
    /// over and those that were left had a moment to end. `shared` says that other workers serve
    /// what waits in the kernel's queues.
    pub fn close(
        &self,
        patience: Duration,
        shared: bool,
    ) -> impl Future<Output = ()> + Send + 'static {
        let _ = shared;
        let open = self.connections.len().saturating_sub(self.accepting);
        info!(connections = open, "Finishing what is in flight");
        self.tokens.stop.cancel();
        self.connections.close();
        let (connections, tokens) = (self.connections.clone(), self.tokens.clone());
        async move {
            if time::timeout(patience, connections.wait()).await.is_err() {
                warn!(
                    connections = connections.len(),
                    "Cutting off connections that did not end in time"
                );
                tokens.cut.cancel();
                let _ = time::timeout(CUT, connections.wait()).await;
            }
        }
    }

    /// Nothing is served any more.
    pub fn closed(&self) {
        self.tokens.stop.cancel();
    }
}

/// How long connections have to notice that they are cut off.
const CUT: Duration = Duration::from_secs(1);
