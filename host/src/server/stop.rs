//! The signals that stop a server, and the forced stop after a second signal.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::signal::unix::{self, Signal, SignalKind};
use tracing::{debug, warn};

use crate::{
    control_socket::SocketFile, exit, folder::store::Store, log::losses::LossMonitor, supervisor,
};

/// The signals that stop a server.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    /// Installs the handlers of the signals.
    ///
    /// # Errors
    ///
    /// When the system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        let terminate = unix::signal(SignalKind::terminate())?;
        let interrupt = unix::signal(SignalKind::interrupt())?;
        let quit = unix::signal(SignalKind::quit())?;
        Ok(Self {
            terminate,
            interrupt,
            quit,
        })
    }

    /// Waits for the next signal, and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => QUIT,
        }
    }

    /// Waits for the second signal. Ignores an echo of the first signal, because timeout(1), npm and terminals send a
    /// signal to a process and then the same signal to its process group.
    async fn second(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.next().await;
            if signal == QUIT || first.elapsed() >= ECHO_WINDOW {
                return signal;
            }
            debug!(
                signal,
                "Ignored, because the signal came within 200 ms of the previous one"
            );
        }
    }
}

/// Ends the process without a drain, and removes the files that the process has made.
pub(super) struct ForcedStop {
    /// Kills the worker processes.
    pub(super) handle: supervisor::Handle,
    /// The file of the control socket, to remove.
    pub(super) control: Option<Arc<SocketFile>>,
    /// The private copies of libraries, to remove.
    pub(super) store: Arc<Store>,
    /// Reports log lines that were lost.
    pub(super) losses: LossMonitor,
}

impl ForcedStop {
    /// Ends the process at once if the first signal is [`QUIT`], and otherwise at the second signal.
    pub(super) async fn run(self, first_signal: &'static str, mut signals: StopSignals) {
        let signal = match first_signal {
            QUIT => QUIT,
            _ => signals.second().await,
        };
        warn!(signal, "Stopping at once");
        let Self {
            handle,
            control,
            store,
            losses,
        } = self;
        if signal == QUIT {
            // SIGQUIT is for finding a hang: log where each thread of the workers is before they are killed.
            handle.dump().await;
        }
        // Kill the workers first: they would serve on until they notice that their supervisor is gone.
        handle.kill().await;
        exit::end_process(1, move || {
            if let Some(control) = control {
                control.remove();
            }
            losses.finish(false);
            // Ignore a failure: the next host that starts removes the copies.
            let _ = store.remove();
        });
    }
}

/// The name of the signal that stops a server without a drain.
pub(super) const QUIT: &str = "SIGQUIT";

/// The time after the first signal within which another signal, except SIGQUIT, counts as an echo.
const ECHO_WINDOW: Duration = Duration::from_millis(200);
