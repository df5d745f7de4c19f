//! Passes the state of a session on to the server, over a Unix socket: a line of JSON for each change.

use std::{io, path::Path};

use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::watch,
};

use super::state::State;

/// Tells each process that connects to the socket the state, and each change of it, until the sender
/// is dropped.
///
/// # Errors
///
/// When the socket cannot be bound.
pub(super) fn start(socket: &Path, state: watch::Receiver<State>) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        let mut ended = state.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(tell(stream, state.clone()));
                    }
                }
                () = async { while ended.changed().await.is_ok() {} } => return,
            }
        }
    });
    Ok(())
}

/// Returns when the session has ended, or the server is gone.
async fn tell(mut stream: UnixStream, mut state: watch::Receiver<State>) {
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
