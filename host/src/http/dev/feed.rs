//! Follows the state of the session. The process of the session writes it as lines of JSON to a Unix
//! socket.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use crate::dev::state::SessionState;

/// Returns a receiver of the session's state, which is None until the first line has come. The sender is
/// dropped when the session ends.
pub(super) fn follow(socket: PathBuf) -> watch::Receiver<Option<Arc<SessionState>>> {
    let (sender, state) = watch::channel(None);
    // Lines are few, so that a thread with blocking reads is simpler than a task, and needs no runtime.
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
