//! The threads of the server: those that serve, and the main one, which keeps the server in hand.
//!
//! Apps run on the threads that serve, and may block them. What an operator needs then is not on them:
//! signals, the control socket and reloading.

use std::{io, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    time,
};

/// The server's two runtimes.
#[derive(Debug)]
pub(super) struct Runtimes {
    /// Serves connections, and runs the apps' handlers.
    pub(super) serving: Runtime,
    /// Runs on the thread that blocks on it, where no app's code does.
    pub(super) managing: Runtime,
}

impl Runtimes {
    /// Starts so many threads to serve.
    ///
    /// # Errors
    ///
    /// When the system gives no threads, or nothing to wait with.
    pub(super) fn start(threads: u16) -> io::Result<Self> {
        let serving = Builder::new_multi_thread()
            .worker_threads(threads.into())
            .thread_name("host")
            .enable_all()
            .build()?;
        let managing = Builder::new_current_thread()
            .thread_name("host")
            .enable_all()
            .build()?;
        // One thread alone has no other to wake.
        if threads > 1 {
            managing.spawn(look_after(serving.handle().clone()));
        }
        Ok(Self { serving, managing })
    }

    /// Ends both. A thread that hangs, in a plugin or on a file system, must not keep the process.
    pub(super) fn shut_down(self) {
        self.serving.shutdown_background();
        self.managing.shutdown_background();
    }
}

/// Sees to it that a blocked thread does not hold up idle ones.
///
/// One of the threads that serve waits for sockets and timers, for all of them. When it takes up a
/// request whose app blocks, nobody waits for them until it is back, though others are idle
/// (<https://github.com/tokio-rs/tokio/issues/4730>). Where one does not get on, an idle one is woken,
/// which waits in its place from then on.
async fn look_after(serving: Handle) {
    let metrics = serving.metrics();
    let mut before = vec![0; metrics.num_workers()];
    loop {
        time::sleep(BETWEEN_LOOKS).await;
        let mut is_one_stuck = false;
        for (worker, before) in before.iter_mut().enumerate() {
            // It counts each time that the thread begins or ends to wait: even is at work.
            let count = metrics.worker_park_unpark_count(worker);
            is_one_stuck |= count.is_multiple_of(2) && count == *before;
            *before = count;
        }
        if is_one_stuck {
            // What comes from outside wakes a thread, if one is idle.
            serving.spawn(async {});
        }
    }
}

/// How long a thread is at work, at least, until another takes over the waiting; twice that at most.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
