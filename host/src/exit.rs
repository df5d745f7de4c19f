//! The end of a process that has loaded plugins.
//!
//! A return from `main` calls `exit(3)`, which runs the exit handlers of every library while the threads of plugins
//! still run. OpenSSL's handler frees memory that these threads use, so a clean stop would crash. A handler that waits
//! for a thread would never return. Therefore the process ends by `_exit(2)`, which runs no handlers. Before that, the
//! host flushes the streams and runs its own cleanup.

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

/// Runs `cleanup`, flushes the streams of the process, and ends the process with the exit code `code`. Runs no exit
/// handlers of libraries.
///
/// Waits at most one second for cleanup and flush, because a file system or a reader of stdout may not respond.
/// Therefore both run on another thread.
pub fn end_process(code: u8, cleanup: impl FnOnce() + Send + 'static) -> ! {
    let (done_sender, done_receiver) = mpsc::channel();
    let clean_up = move || {
        cleanup();
        // An error is ignored, because no way to report the error is left.
        let _ = io::stdout().flush();
        // Writes the bytes that C code has printed, which `_exit` would drop. Blocks while another thread holds the
        // lock of a C stream, for example a thread that reads stdin.
        host::flush_c_streams();
        // Cannot fail, because the receiver exists until the process ends.
        let _ = done_sender.send(());
    };
    // If the system provides no thread, the process ends without the cleanup.
    if thread::Builder::new().spawn(clean_up).is_ok() {
        // After a timeout the process ends, too.
        let _ = done_receiver.recv_timeout(CLEANUP_TIMEOUT);
    }
    // `scripts/release` builds a host that counts how often each line runs. An exit handler of that host writes the
    // counts to the file that this variable names, so this process must run the exit handlers.
    if env::var_os("LLVM_PROFILE_FILE").is_some() {
        process::exit(code.into());
    }
    low_level::exit(code.into())
}

/// The time limit of cleanup and flush together.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
