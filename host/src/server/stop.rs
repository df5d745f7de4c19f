//! The signals that stop a server, and the stop at once.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::signal::unix::{self, Signal, SignalKind};
use tracing::{debug, warn};

use crate::{
    control::socket::SocketFile, exit, folder::store::Store, log::losses::LossMonitor, supervisor,
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

    /// Waits for a signal that is meant as a second one. timeout(1), npm and terminals send one signal to a
    /// process and then the same to its process group; such an echo is ignored.
    async fn second(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.next().await;
            if signal == QUIT || first.elapsed() >= ECHO {
                return signal;
            }
            debug!(
                signal,
                "Taken for the signal before, as it came within 200 ms of that"
            );
        }
    }
}

/// The parts of a server that a stop at once still has to end or remove.
pub(super) struct ForcedStop {
    /// Ends the worker processes.
    pub(super) handle: supervisor::Handle,
    /// The file of the control socket, which is removed.
    pub(super) control: Option<Arc<SocketFile>>,
    /// The private copies of libraries, which are removed.
    pub(super) store: Arc<Store>,
    /// Reports lines that are lost.
    pub(super) losses: LossMonitor,
}

impl ForcedStop {
    /// Ends the process at once when `signal` is [`QUIT`], and otherwise at the next signal.
    pub(super) async fn run(self, signal: &'static str, mut signals: StopSignals) {
        let signal = match signal {
            QUIT => signal,
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
            handle.dump().await;
        }
        // The workers first: without their supervisor they would go on until they notice.
        handle.kill().await;
        exit::leave(1, move || {
            if let Some(control) = control {
                control.remove();
            }
            losses.finish(false);
            // If this fails, the next host that starts removes the copies.
            let _ = store.remove();
        });
    }
}

/// The signal that stops a server at once.
pub(super) const QUIT: &str = "SIGQUIT";

/// How soon after the first signal another one counts as its echo.
const ECHO: Duration = Duration::from_millis(200);
