//! Sends the state of a session to the session's server over a Unix socket: one line of JSON for each change.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::watch,
    time,
};

use super::state::SessionState;

/// Binds the socket, and starts a task that accepts connections. The task sends the current state and each new state
/// over every connection. All tasks end when the sender of `state` is dropped.
///
/// # Errors
///
/// Fails when the socket cannot be bound.
pub(super) fn start(socket: &Path, state: watch::Receiver<SessionState>) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        let mut session = state.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    match accepted {
                        Ok((stream, _)) => drop(tokio::spawn(send(stream, state.clone()))),
                        // The connection stays in the queue while this process has no free descriptor, so
                        // another attempt fails at once.
                        Err(_) => time::sleep(RETRY_DELAY).await,
                    }
                }
                // `changed` fails when the sender is dropped, at the end of the session.
                () = async { while session.changed().await.is_ok() {} } => return,
            }
        }
    });
    Ok(())
}

/// Sends the current state and each new state over one connection, until the session ends or the peer closes the
/// connection.
async fn send(mut stream: UnixStream, mut state: watch::Receiver<SessionState>) {
    loop {
        let Ok(mut line) = serde_json::to_vec(&*state.borrow_and_update()) else {
            return;
        };
        line.push(b'\n');
        if stream.write_all(&line).await.is_err() || state.changed().await.is_err() {
            return;
        }
    }
}

/// How long to wait after a failed accept.
const RETRY_DELAY: Duration = Duration::from_millis(100);
