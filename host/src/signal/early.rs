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

/// Handlers for signals that would end the process, until the server has its own.
#[derive(Debug)]
pub struct EarlySignals {
    /// While this is true, the signals have their default action.
    is_default: Arc<AtomicBool>,
    caught: Vec<Caught>,
}

/// One signal, and whether it has arrived.
#[derive(Debug)]
struct Caught {
    signal: i32,
    has_arrived: Arc<AtomicBool>,
    handler: SigId,
}

impl EarlySignals {
    /// Remembers the signals from now on, instead of being ended by them. To be called first thing
    /// in `main`.
    #[must_use]
    pub fn catch() -> Self {
        let is_default = Arc::new(AtomicBool::new(false));
        let catch = |signal| {
            flag::register_conditional_default(signal, Arc::clone(&is_default)).ok()?;
            let has_arrived = Arc::new(AtomicBool::new(false));
            let handler = flag::register(signal, Arc::clone(&has_arrived)).ok()?;
            Some(Caught {
                signal,
                has_arrived,
                handler,
            })
        };
        // Only signals that no process may handle are refused, and these three are none of them.
        let caught = [SIGHUP, SIGUSR1, SIGUSR2]
            .into_iter()
            .filter_map(catch)
            .collect();
        Self { is_default, caught }
    }

    /// Gives the signals their default action back, for a process that does not serve: closing its
    /// terminal ends `host ctl`.
    pub fn release(&self) {
        self.is_default.store(true, Ordering::Relaxed);
    }

    /// Raises again each signal that has arrived, for the handlers that the server has installed
    /// meanwhile. A signal that arrived after these is delivered twice, which does no harm: each of
    /// them asks for something to be done anew.
    pub fn deliver(self) {
        for caught in self.caught {
            low_level::unregister(caught.handler);
            if caught.has_arrived.load(Ordering::Relaxed) {
                // Nobody waits for the result: the handler only wakes a task.
                let _ = low_level::raise(caught.signal);
            }
        }
    }
}
