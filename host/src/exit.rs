//! The end of a process that has loaded plugins.
//!
//! `exit(3)`, which a return from `main` calls, runs the exit handlers of every library while the
//! threads of plugins still run. OpenSSL's handler frees what these threads use, so that a clean stop
//! crashes; a handler that waits for a thread never returns. Therefore the process ends by
//! `_exit(2)`, after the host has flushed and removed what is its own.

use std::{
    env,
    io::{self, Write},
    process,
    sync::mpsc,
    thread,
    time::Duration,
};

use plugin_api::host;
use signal_hook::low_level;

/// Ends the process with the exit code `code`, after `cleanup` has run and the streams of the process have been
/// flushed. No exit handlers of libraries run.
///
/// A file system or a reader of stdout that does not answer delays the end by at most one second, because all
/// of this happens on another thread.
pub fn leave(code: u8, cleanup: impl FnOnce() + Send + 'static) -> ! {
    let (done, is_done) = mpsc::channel();
    let clean_up = move || {
        cleanup();
        // An error cannot be reported any more.
        let _ = io::stdout().flush();
        host::flush_c_streams();
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(clean_up).is_ok() {
        let _ = is_done.recv_timeout(CLEANUP_TIMEOUT);
    }
    // `scripts/release` builds a host that counts how often each line runs. An exit handler writes the counts to
    // the file that this variable names.
    if env::var_os("LLVM_PROFILE_FILE").is_some() {
        process::exit(code.into());
    }
    low_level::exit(code.into())
}

/// How long the cleanup may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
