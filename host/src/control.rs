//! The control socket: HTTP/1.1 on a Unix socket that only the host's own user may open.
//!
//! The host has one when the operator asks for it (`--control`). [`verbs`] answers the requests. Its
//! clients are `host ctl` ([`ctl`](crate::ctl)) and `curl --unix-socket`.

pub mod socket;
mod upload;
pub mod verbs;

use std::{sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixListener, sync::Semaphore};
use tracing::debug;

use self::{
    socket::{ControlListener, SocketFile},
    verbs::Control,
};
use crate::shortage::Shortage;

/// Starts to answer requests, in tasks that end with the runtime. Dropping the returned value removes the
/// file of the socket.
pub fn start(listener: ControlListener, control: Control) -> SocketFile {
    let (listener, file) = listener.into_parts();
    tokio::spawn(serve(listener, control));
    file
}

async fn serve(listener: UnixListener, control: Control) {
    let control = Arc::new(control);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shortage = Shortage::new("control connections");
    // Acquiring fails only on a closed semaphore, and nobody closes this one.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        // The permit is taken before the connection is accepted, so that more clients wait in the backlog.
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                shortage.wait(&error).await;
                continue;
            }
        };
        shortage.over();
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let service = service_fn(|request| verbs::answer(&control, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "Control connection failed");
            }
            drop(permit);
        });
    }
}

/// The number of connections served at once. More connections wait in the backlog.
const CONNECTIONS: usize = 32;

/// The time that a client has to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
