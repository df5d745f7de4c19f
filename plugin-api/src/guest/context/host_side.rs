//! The functions of [`Context`] that the plugin side calls, and authors do not: they create the context, set its state,
//! and take the author's hooks out.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::{Context, ContextData, Inner, ShutdownHook};
use crate::guest::handover::HandoverHook;

impl Context {
    pub(crate) fn new(data: ContextData) -> Self {
        let ContextData {
            name,
            mount,
            version,
            generation,
            config,
            previous_state,
            has_predecessor,
        } = data;
        Self(Arc::new(Inner {
            name,
            mount,
            version,
            generation,
            config,
            previous_state,
            shutdown_hooks: Mutex::default(),
            handover_hook: Mutex::default(),
            handover_failed_hook: Mutex::default(),
            handover_started: AtomicBool::new(false),
            is_draining: watch::Sender::default(),
            has_predecessor: watch::Sender::new(has_predecessor),
        }))
    }

    /// Wakes the app's futures from [`Context::draining`] if `is_draining` is true.
    pub(crate) fn set_draining(&self, is_draining: bool) {
        // `send_replace` sets the value even if no receiver exists now, because later receivers read the value.
        self.0.is_draining.send_replace(is_draining);
    }

    /// Wakes the app's futures from [`Context::previous_ended`] if `has_predecessor` is false.
    pub(crate) fn set_has_predecessor(&self, has_predecessor: bool) {
        self.0.has_predecessor.send_replace(has_predecessor);
    }

    /// Records that the handover hook is called now. If the handover fails later, the hook for a failed handover runs.
    pub(crate) fn set_handover_started(&self, started: bool) {
        self.0.handover_started.store(started, Ordering::Relaxed);
    }

    /// Returns the hook that must run after a failed handover. Returns `None` if the handover hook was not called since
    /// the last call of this function, or if the app has set no such hook.
    pub(crate) fn take_handover_failed_hook(&self) -> Option<HandoverHook> {
        // Reset, so that the hook runs once for each failed handover. The next reload may start another handover.
        // Relaxed is enough, because no other memory depends on the flag.
        if !self.0.handover_started.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.0
            .handover_failed_hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the handover hook, or `None` if the app has set no such hook.
    pub(crate) fn handover_hook(&self) -> Option<HandoverHook> {
        self.0
            .handover_hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Drops all hooks. Without this call, a hook that holds a clone of this context would form a reference cycle with
    /// the context, and both would be leaked.
    pub(crate) fn clear_hooks(&self) {
        // The hooks are dropped after the locks are released, because the drop runs the author's code, and this code
        // may call the context.
        let hooks = [&self.0.handover_hook, &self.0.handover_failed_hook];
        let hooks = hooks.map(|hook| hook.lock().unwrap_or_else(PoisonError::into_inner).take());
        let shutdown_hooks = mem::take(
            &mut *self
                .0
                .shutdown_hooks
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop((hooks, shutdown_hooks));
    }

    /// Removes and returns the shutdown hook that the app added first. Returns `None` if no hook is left.
    pub(crate) fn next_shutdown_hook(&self) -> Option<ShutdownHook> {
        self.0
            .shutdown_hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}
