//! What the host's calls do to a [`Context`].

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::{Context, Facts, Hook, Inner};
use crate::guest::handover;

impl Context {
    pub(crate) fn new(facts: Facts) -> Self {
        let Facts {
            name,
            mount,
            version,
            generation,
            config,
            previous_state,
            is_second,
        } = facts;
        Self(Arc::new(Inner {
            name,
            mount,
            version,
            generation,
            config,
            previous_state,
            shutdown: Mutex::default(),
            handover: Mutex::default(),
            take_back: Mutex::default(),
            handed_over: AtomicBool::new(false),
            draining: watch::Sender::default(),
            is_second: watch::Sender::new(is_second),
        }))
    }

    pub(crate) fn set_draining(&self, is: bool) {
        self.0.draining.send_replace(is);
    }

    pub(crate) fn set_second(&self, is: bool) {
        self.0.is_second.send_replace(is);
    }

    /// The hook of the handover is called now.
    pub(crate) fn set_handed_over(&self, is: bool) {
        self.0.handed_over.store(is, Ordering::Relaxed);
    }

    /// The hook for a handover that came to nothing, if the handover's hook was called and the app has one.
    pub(crate) fn take_back_hook(&self) -> Option<handover::Hook> {
        if !self.0.handed_over.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.0
            .take_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The hook for the handover, if the app has one.
    pub(crate) fn handover_hook(&self) -> Option<handover::Hook> {
        self.0
            .handover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Drops the hooks, which may hold the context that they are in.
    pub(crate) fn clear_hooks(&self) {
        let hooks = [&self.0.handover, &self.0.take_back];
        let hooks = hooks.map(|hook| hook.lock().unwrap_or_else(PoisonError::into_inner).take());
        let shutdown = mem::take(
            &mut *self
                .0
                .shutdown
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop((hooks, shutdown));
    }

    /// The next of the hooks that run at the end, in the order in which they were added.
    pub(crate) fn next_shutdown_hook(&self) -> Option<Hook> {
        self.0
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}
