//! The signals that arrive before the server is ready to act on them.
//!
//! SIGHUP, SIGUSR1 and SIGUSR2 end a process that has no handler for them (signal(7)). A service
//! manager may send them as soon as the process exists, while the host still reads its
//! configuration, so the handlers are installed before anything else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    SigId,
    consts::{SIGHUP, SIGUSR1, SIGUSR2},
    flag, low_level,
};

/// Handlers for signals that would end the process, until the server has handlers of its own.
#[derive(Debug)]
pub struct EarlySignals {
    /// While this is true, the signals have their default action.
    is_default: Arc<AtomicBool>,
    caught: Vec<EarlySignal>,
}

/// The handler of one signal.
#[derive(Debug)]
struct EarlySignal {
    signal: i32,
    has_arrived: Arc<AtomicBool>,
    handler: SigId,
}

impl EarlySignals {
    /// Installs the handlers, which only store that a signal has arrived. Has to be called first in `main`.
    #[must_use]
    pub fn catch() -> Self {
        let is_default = Arc::new(AtomicBool::new(false));
        let catch = |signal| {
            flag::register_conditional_default(signal, Arc::clone(&is_default)).ok()?;
            let has_arrived = Arc::new(AtomicBool::new(false));
            let handler = flag::register(signal, Arc::clone(&has_arrived)).ok()?;
            Some(EarlySignal {
                signal,
                has_arrived,
                handler,
            })
        };
        // `register` fails only for signals that no process may handle, such as SIGKILL.
        let caught = [SIGHUP, SIGUSR1, SIGUSR2]
            .into_iter()
            .filter_map(catch)
            .collect();
        Self { is_default, caught }
    }

    /// Restores the default action of the signals, for a process that does not serve. So `host ctl` ends when its
    /// terminal is closed.
    pub fn release(&self) {
        self.is_default.store(true, Ordering::Relaxed);
    }

    /// Raises each signal that has arrived once more, for the handlers that the server has installed meanwhile. A signal
    /// that arrived after that installation is handled twice. That does no harm, because each signal asks to do
    /// something again.
    pub fn deliver(self) {
        for caught in self.caught {
            low_level::unregister(caught.handler);
            if caught.has_arrived.load(Ordering::Relaxed) {
                // Cannot fail for a valid signal.
                let _ = low_level::raise(caught.signal);
            }
        }
    }
}
