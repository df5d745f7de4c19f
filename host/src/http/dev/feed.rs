//! Follows the state of the session, which comes as lines of JSON over a Unix socket.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use crate::dev::state::SessionState;

/// The state of the session at `socket`; none before it is known. The sender is gone when the session has
/// ended.
pub(super) fn follow(socket: PathBuf) -> watch::Receiver<Option<Arc<SessionState>>> {
    let (sender, state) = watch::channel(None);
    // A thread of its own: the runtime that serves may be any, and lines are few.
    let followed = thread::Builder::new()
        .name("dev-session".to_owned())
        .spawn(move || {
            let Ok(stream) = UnixStream::connect(socket) else {
                return;
            };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Ok(state) = serde_json::from_str::<SessionState>(&line) {
                    sender.send_replace(Some(Arc::new(state)));
                }
            }
        });
    // Without a thread the state stays unknown, and apps are served all the same.
    drop(followed);
    state
}
