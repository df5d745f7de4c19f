//! The plugin's tokio runtime, and the guard that all of the author's code runs under.

use std::{
    any::Any,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, EnterGuard, Handle};

use crate::crossing::Guard;

/// The plugin's own runtime: its copy of tokio knows nothing of the host's.
#[derive(Debug)]
pub(crate) struct Runtime {
    entered: Entered,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

impl Runtime {
    /// A runtime whose threads have the name `thread_name`.
    pub(crate) fn new(thread_name: &str, worker_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads)
            .thread_name(thread_name)
            .enable_all()
            .build()?;
        Ok(Self {
            entered: Entered(runtime.handle().clone()),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(crate) fn entered(&self) -> &Entered {
        &self.entered
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.entered.0
    }

    /// The runtime itself, once, to end it.
    pub(crate) fn take(&self) -> Option<tokio::runtime::Runtime> {
        self.runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Runs the author's code: in the plugin's runtime, and with an end to its panics.
///
/// Every entry needs it, drops too: without the runtime, a timer in a body's stream panics; without
/// the catch, a panic in a destructor aborts the server.
#[derive(Clone, Debug)]
pub struct Entered(Handle);

impl Entered {
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }
}

impl Guard for Entered {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let _entered = self.enter();
        catch(work)
    }
}

/// Runs `work`; none when it panicked, which the hook has reported.
///
/// What the work shares with others stays theirs to distrust, as after a thread's panic: std's
/// locks are poisoned.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(drop_payload)
        .ok()
}

/// Drops what a panic carried, whose own destructor may panic, and so on: then it is leaked.
fn drop_payload(payload: Box<dyn Any + Send>) {
    std::mem::forget(panic::catch_unwind(AssertUnwindSafe(|| drop(payload))));
}
