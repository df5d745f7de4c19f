//! The plugin's tokio runtime, and the guard that all of the author's code runs under.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, EnterGuard, Handle};

use crate::crossing::{Guard, catch};

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
        // Within the catch: it panics when the author's code has leaked a guard of its own.
        catch(|| {
            let _entered = self.enter();
            work()
        })
    }
}
