//! Stores the signals that arrive before the server has installed its own handlers.
//!
//! SIGHUP, SIGUSR1 and SIGUSR2 terminate a process that has no handler for them (signal(7)). A service manager may send
//! these signals as soon as the process exists, while the host still reads its configuration. Therefore `main` installs
//! these handlers before anything else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    SigId,
    consts::{SIGHUP, SIGUSR1, SIGUSR2},
    flag, low_level,
};

/// Handlers for signals that would terminate the process before the server has its own handlers.
#[derive(Debug)]
pub struct EarlySignals {
    /// While this is true, the signals have their default action.
    is_default: Arc<AtomicBool>,
    signals: Vec<EarlySignal>,
}

/// The handler of one signal, and whether the signal has arrived.
#[derive(Debug)]
struct EarlySignal {
    /// The number of the signal.
    signal: i32,
    has_arrived: Arc<AtomicBool>,
    /// The handler that sets `has_arrived`. The handler for the default action stays installed.
    handler: SigId,
}

impl EarlySignals {
    /// Installs the handlers, which only record that a signal has arrived. Must be the first call in `main`.
    #[must_use]
    pub fn catch() -> Self {
        let is_default = Arc::new(AtomicBool::new(false));
        let catch = |signal| {
            // With two handlers for a signal, each acts when the signal arrives: the first terminates the process if
            // `is_default` is true, and the second records the signal.
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
        let signals = [SIGHUP, SIGUSR1, SIGUSR2]
            .into_iter()
            .filter_map(catch)
            .collect();
        Self {
            is_default,
            signals,
        }
    }

    /// Restores the default action of the signals, for a process that does not serve. For example, `host ctl` must end
    /// when its terminal is closed.
    pub fn release(&self) {
        self.is_default.store(true, Ordering::Relaxed);
    }

    /// Raises each recorded signal again, for the handlers that the server has installed since then. A signal that
    /// arrived after the server installed its handlers is handled twice. That does no harm, because each of these
    /// signals requests an action that can be repeated.
    pub fn deliver(self) {
        for early in self.signals {
            low_level::unregister(early.handler);
            if early.has_arrived.load(Ordering::Relaxed) {
                // Raising a valid signal cannot fail.
                let _ = low_level::raise(early.signal);
            }
        }
    }
}
