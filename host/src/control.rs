//! The control socket: HTTP/1.1 on a Unix socket that only the host's own user may open.
//!
//! The host opens the socket only if the operator sets `--control`. [`verbs`] answers the requests. Clients are
//! `host ctl` ([`ctl`](crate::ctl)) and programs such as `curl --unix-socket`.

mod upload;
pub mod verbs;

use std::{sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixListener, sync::Semaphore};
use tracing::debug;

use self::verbs::ControlContext;
use crate::{
    control_socket::{ControlListener, SocketFile},
    shortage::Shortage,
};

/// Starts a task that answers requests until the runtime ends. Dropping the returned value removes the file of the
/// socket.
pub fn start(listener: ControlListener, context: ControlContext) -> SocketFile {
    let (listener, file) = listener.into_parts();
    tokio::spawn(serve(listener, context));
    file
}

/// Accepts connections, and serves each connection in its own task.
async fn serve(listener: UnixListener, context: ControlContext) {
    let context = Arc::new(context);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shortage = Shortage::new("control connections");
    // The loop never ends: `acquire_owned` fails only on a closed semaphore, and this semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        // The permit is acquired before a connection is accepted, so that further clients wait in the kernel's backlog.
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                shortage.wait(&error).await;
                continue;
            }
        };
        shortage.end();
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            let service = service_fn(|request| verbs::answer(&context, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "Control connection failed");
            }
            drop(permit);
        });
    }
}

/// The number of connections that are served at the same time. Further connections wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;

/// The time that a client has to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
