//! The plugin's tokio runtime, and the guard that all of the author's code runs under.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, Handle};

use super::stack;
use crate::{
    crossing::{Guard, Workers},
    panics::catch,
};

/// The plugin's own runtime: its copy of tokio knows nothing of the host's.
#[derive(Debug)]
pub(crate) struct Runtime {
    entered: Entered,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    workers: Mutex<Workers>,
}

impl Runtime {
    /// A runtime whose threads have the name `thread_name`.
    pub(crate) fn new(thread_name: &str, worker_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads)
            .thread_name(thread_name)
            .on_thread_start(stack::alternate)
            .on_thread_stop(stack::give_back)
            .enable_all()
            .build()?;
        Ok(Self {
            entered: Entered(runtime.handle().clone()),
            workers: Mutex::new(Workers::new(runtime.handle().clone())),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(crate) fn entered(&self) -> &Entered {
        &self.entered
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.entered.0
    }

    /// Sees to it that a blocked thread does not hold up the runtime's timers and sockets.
    pub(crate) fn look_after(&self) {
        let workers = self.workers.lock();
        workers.unwrap_or_else(PoisonError::into_inner).look_after();
    }

    /// The runtime itself, once, to end it.
    pub(crate) fn take(&self) -> Option<tokio::runtime::Runtime> {
        self.runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Runs the author's code in the plugin's runtime, and catches its panics.
///
/// All entries of the plugin run the author's code so, drops included. Without the runtime, a timer in a body's stream
/// panics. Without the catch, a panic in a destructor aborts the server.
#[derive(Clone, Debug)]
pub struct Entered(Handle);

impl Guard for Entered {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        // Leaving the runtime panics when the author's code has leaked a guard of tokio's, so that is caught too.
        catch(|| {
            let _entered = self.0.enter();
            work()
        })
    }

    /// A task of tokio's has a budget: after 128 steps within one poll, tokio's channels, locks and sockets
    /// are pending, so that a task which never waits gives its thread back (`tokio::task::coop`).
    /// `Handle::enter` sets no budget, and `Handle::block_on` does. The future here is ready at its first
    /// poll, so that `block_on` never blocks.
    ///
    /// As in a task, blocking on another future panics in `work`, unless in `block_in_place`.
    fn poll<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        catch(|| self.0.block_on(async { work() }))
    }
}
