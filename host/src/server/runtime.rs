//! The threads of the server: those that serve, and the main one, which keeps the server in hand.
//!
//! Apps run on the threads that serve, and may block them. What an operator needs then is not on them:
//! signals, the control socket and reloading.

use std::{io, thread, time::Duration};

use plugin_api::host::{Workers, look_after_apps};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{config::Config, scoreboard, worker::crash::stack};

/// The server's runtimes.
#[derive(Debug)]
pub(super) struct Threads {
    /// Serves connections, and runs the apps' handlers; none when other processes do so.
    pub(super) serving: Option<Runtime>,
    /// Runs on the thread that blocks on it, where no app's code does.
    pub(super) managing: Runtime,
}

impl Threads {
    /// Starts the threads that this process needs.
    ///
    /// # Errors
    ///
    /// When the system gives no threads, or nothing to wait with.
    pub(super) fn start(config: &Config) -> io::Result<Self> {
        let serves = config.processes.workers == 0;
        let serving = serves.then(|| serving(config.threads)).transpose()?;
        Ok(Self {
            serving,
            managing: managing()?,
        })
    }

    /// Ends them. A thread that hangs, in a plugin or on a file system, must not keep the process.
    pub(super) fn shut_down(self) {
        if let Some(serving) = self.serving {
            serving.shutdown_background();
        }
        self.managing.shutdown_background();
    }
}

/// A runtime of so many threads that serve, which nobody's blocked thread holds up.
///
/// # Errors
///
/// When the system gives no threads, or nothing to wait with.
pub(crate) fn serving(threads: u16) -> io::Result<Runtime> {
    let serving = Builder::new_multi_thread()
        .worker_threads(threads.into())
        .thread_name("host")
        .on_thread_start(stack::alternate)
        .enable_all()
        .build()?;
    look_after(serving.handle().clone())?;
    Ok(serving)
}

/// A runtime that runs on the thread that blocks on it.
///
/// # Errors
///
/// When the system gives nothing to wait with.
pub(crate) fn managing() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .thread_name("host")
        .on_thread_start(stack::alternate)
        .enable_all()
        .build()
}

/// Sees to it that blocked threads do not hold up idle ones, in the runtime that serves and in those of
/// the apps: from a thread of its own, as none of the runtimes could do so while it is held up.
fn look_after(serving: Handle) -> io::Result<()> {
    let mut serving = Workers::new(serving);
    let look = move || {
        loop {
            thread::sleep(BETWEEN_LOOKS);
            serving.look_after();
            look_after_apps();
            if let Some(board) = scoreboard::serving() {
                board.tick();
            }
        }
    };
    // It ends with the process.
    thread::Builder::new().name("host".to_owned()).spawn(look)?;
    Ok(())
}

/// How long a thread is at work, at least, until another takes over the waiting; twice that at most.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
