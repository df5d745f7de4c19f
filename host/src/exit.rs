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

/// Runs `cleanup`, flushes the streams of the process, and ends the process with the exit code
/// `code`, without the exit handlers of libraries.
///
/// A file system or a reader of stdout that does not answer delays the end by at most
/// one second.
pub fn leave(code: u8, cleanup: impl FnOnce() + Send + 'static) -> ! {
    let (done, is_done) = mpsc::channel();
    let clean_up = move || {
        cleanup();
        // What cannot be written now never will be.
        let _ = io::stdout().flush();
        host::flush_c_streams();
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(clean_up).is_ok() {
        let _ = is_done.recv_timeout(CLEANUP_TIMEOUT);
    }
    // A host that counts what it runs, as `scripts/release` builds one, writes the counts in an exit
    // handler, to the file that this variable names.
    if env::var_os("LLVM_PROFILE_FILE").is_some() {
        process::exit(code.into());
    }
    low_level::exit(code.into())
}

/// How long the last things may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
