//! The apps of this process, for what has to be done for all of them every so often.

use std::sync::{Mutex, PoisonError};

use super::App;

/// The apps that were started and not stopped, and some that were stopped since the last look.
static RUNNING: Mutex<Vec<&'static App>> = Mutex::new(Vec::new());

pub(super) fn add(app: &'static App) {
    RUNNING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(app);
}

/// Has the runtime of each app that is not stopped wake an idle thread if another one is blocked: else
/// nobody would wait for the app's timers and sockets until the blocked thread is back. To be called every
/// 50 ms or so, on a thread of its own: it runs code of each library, though none of the author's.
pub fn look_after_apps() {
    let running = {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|app| !app.is_stopped());
        running.clone()
    };
    for app in running {
        app.look_after();
    }
}
