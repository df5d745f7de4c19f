//! The plugin's tokio runtime, and [`RuntimeScope`], within which all code of the author runs.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, Handle};

use super::stack;
use crate::{
    crossing::{PanicBoundary, StallWatch},
    panics::catch,
};

/// The plugin's own tokio runtime. The plugin cannot use the host's runtime, because the plugin has its own copy of
/// tokio, with its own statics and thread-locals.
#[derive(Debug)]
pub(crate) struct Runtime {
    scope: RuntimeScope,
    /// `None` after [`take`](Self::take).
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    stall_watch: Mutex<StallWatch>,
}

impl Runtime {
    /// Starts a runtime with `worker_threads` threads. All its threads have the name `thread_name`.
    pub(crate) fn new(thread_name: &str, worker_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads)
            .thread_name(thread_name)
            .on_thread_start(stack::install_signal_stack)
            .on_thread_stop(stack::remove_signal_stack)
            .enable_all()
            .build()?;
        Ok(Self {
            scope: RuntimeScope(runtime.handle().clone()),
            stall_watch: Mutex::new(StallWatch::new(runtime.handle().clone())),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(crate) fn scope(&self) -> &RuntimeScope {
        &self.scope
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.scope.0
    }

    /// Wakes an idle thread if a blocked thread keeps the runtime from serving its timers and sockets
    /// ([`StallWatch`]). The host calls this at regular intervals.
    pub(crate) fn wake_if_stalled(&self) {
        let stall_watch = self.stall_watch.lock();
        stall_watch
            .unwrap_or_else(PoisonError::into_inner)
            .wake_if_stalled();
    }

    /// Moves the tokio runtime out, so that the caller can shut the runtime down. Returns `None` after the first call.
    pub(crate) fn take(&self) -> Option<tokio::runtime::Runtime> {
        self.runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Runs the author's code in the plugin's runtime, and catches its panics.
///
/// Every function of the plugin that the host calls runs the author's code, destructors included, within this scope.
/// Outside of the runtime, creating a timer of tokio panics. An uncaught panic would abort the server, because it
/// cannot unwind out of an `extern "C"` function.
#[derive(Clone, Debug)]
pub struct RuntimeScope(Handle);

impl PanicBoundary for RuntimeScope {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        // `enter` is within `catch`, because dropping the guard panics if the author's code has leaked an `EnterGuard`
        // of its own.
        catch(|| {
            let _guard = self.0.enter();
            work()
        })
    }

    /// Runs `work` with tokio's cooperative budget, like a poll of a tokio task. After 128 operations, tokio's
    /// channels, locks and sockets return `Pending` (`tokio::task::coop`). Without the budget, a future whose resources
    /// are always ready would occupy the thread forever.
    ///
    /// `Handle::enter` sets no budget, but `Handle::block_on` does. `block_on` never blocks here, because its future is
    /// ready at the first poll. As in a tokio task, `work` panics if it blocks on another future outside of
    /// `block_in_place`.
    fn poll<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        catch(|| self.0.block_on(async { work() }))
    }
}
