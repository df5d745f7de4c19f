//! Receives the state of the session. The session process writes each state as a line of JSON to a Unix socket.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use crate::dev::state::SessionState;

/// Returns a receiver of the session's state. The state is `None` until the first line was received. The sender is
/// dropped when the session closes the socket.
pub(super) fn receive(socket: PathBuf) -> watch::Receiver<Option<Arc<SessionState>>> {
    let (sender, state) = watch::channel(None);
    // A thread with blocking reads is simpler than a task and needs no runtime. The lines are few.
    let spawned = thread::Builder::new()
        .name("dev-session".to_owned())
        .spawn(move || {
            let Ok(stream) = UnixStream::connect(socket) else {
                return;
            };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                // A line that cannot be parsed is skipped.
                if let Ok(state) = serde_json::from_str::<SessionState>(&line) {
                    sender.send_replace(Some(Arc::new(state)));
                }
            }
        });
    // An error is ignored: without the thread the state stays `None`, and apps are served nevertheless.
    drop(spawned);
    state
}
