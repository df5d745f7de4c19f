//! The runtimes of the server: one that serves, and one that controls the server.
//!
//! Apps run on the threads of the serving runtime, and may block all of them. Signals, the control socket and
//! reloading therefore run on the main thread, in a runtime of its own, so that an operator can always reach the
//! server.

use std::{io, thread, time::Duration};

use plugin_api::host::{StallWatch, wake_stalled_apps};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{config::Config, scoreboard};

/// The runtimes of a server.
#[derive(Debug)]
pub(super) struct Runtimes {
    /// Serves connections and runs handlers of apps. None when worker processes do that.
    pub(super) serving: Option<Runtime>,
    /// Runs on the thread that blocks on it, where no code of apps runs.
    pub(super) managing: Runtime,
}

impl Runtimes {
    /// Starts the runtimes that this process needs. Each of their threads calls `on_thread_start` first.
    ///
    /// # Errors
    ///
    /// When the system gives no threads or no event queue.
    pub(super) fn start(config: &Config, on_thread_start: fn()) -> io::Result<Self> {
        let serves = config.workers.count == 0;
        let serving = serves
            .then(|| serving(config.threads, on_thread_start))
            .transpose()?;
        Ok(Self {
            serving,
            managing: managing(on_thread_start)?,
        })
    }

    /// Ends the runtimes without waiting for their threads, because a thread may be stuck in a plugin or on a file
    /// system.
    pub(super) fn shut_down(self) {
        if let Some(serving) = self.serving {
            serving.shutdown_background();
        }
        self.managing.shutdown_background();
    }
}

/// Starts a serving runtime with this many threads, each of which calls `on_thread_start` first. A blocked thread does not hold up the others.
///
/// # Errors
///
/// When the system gives no threads or no event queue.
pub(crate) fn serving(threads: u16, on_thread_start: fn()) -> io::Result<Runtime> {
    let serving = Builder::new_multi_thread()
        .worker_threads(threads.into())
        .thread_name("host")
        .on_thread_start(on_thread_start)
        .enable_all()
        .build()?;
    start_stall_watch(serving.handle().clone())?;
    Ok(serving)
}

/// Makes a runtime that runs on the thread that blocks on it.
///
/// # Errors
///
/// When the system gives no event queue.
pub(crate) fn managing(on_thread_start: fn()) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .thread_name("host")
        .on_thread_start(on_thread_start)
        .enable_all()
        .build()
}

/// Starts a thread that keeps blocked threads from holding up idle ones, in the serving runtime and in those of
/// the apps.
///
/// One thread of a tokio runtime waits for sockets and timers on behalf of all. If it takes up a request whose app
/// blocks, no thread waits for them until the app returns, although other threads are idle. This thread
/// notices that and wakes an idle one. It also advances the clock of the scoreboard.
///
/// # Errors
///
/// When the system gives no thread.
fn start_stall_watch(serving: Handle) -> io::Result<()> {
    let mut serving = StallWatch::new(serving);
    // From a thread of its own, because none of the runtimes could do it while all of its threads are blocked.
    let check = move || {
        loop {
            thread::sleep(CHECK_INTERVAL);
            serving.wake_if_stalled();
            wake_stalled_apps();
            if let Some(board) = scoreboard::active() {
                board.tick();
            }
        }
    };
    // The thread runs until the process ends.
    thread::Builder::new()
        .name("host".to_owned())
        .spawn(check)?;
    Ok(())
}

/// The pause between two checks. A thread has to be busy for this time, or up to twice as long, before another one
/// is woken.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
