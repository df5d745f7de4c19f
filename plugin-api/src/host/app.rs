//! A started app: how requests get in, how many are there, and how it ends.

use std::{
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::abi;

/// An app of a plugin.
///
/// It counts the requests that are in it. Dropping an app that was not stopped leaks it: its
/// threads may still run.
#[derive(Debug)]
pub struct App {
    pub(super) plugin: &'static abi::Plugin,
    pub(super) app: *mut c_void,
    in_flight: AtomicUsize,
    closed: AtomicBool,
    stopped: AtomicBool,
    left: Notify,
}

// SAFETY: the contract of `abi::Plugin` lets any thread call the functions with the app.
unsafe impl Send for App {}
// SAFETY: as above.
unsafe impl Sync for App {}

impl App {
    /// # Safety
    ///
    /// `app` is what the `init` of `plugin` gave.
    pub(super) unsafe fn new(plugin: &'static abi::Plugin, app: *mut c_void) -> Self {
        Self {
            plugin,
            app,
            in_flight: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    /// Lets a request in, unless the app is closed.
    ///
    /// The request counts until the result is dropped, which is when its response's body has been
    /// sent.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        // Count first, then look: `close` closes first, then counts. One of the two sees the other.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let entered = InFlight(Arc::clone(self));
        (!self.closed.load(Ordering::SeqCst)).then_some(entered)
    }

    /// How many requests are in the app.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Lets no more requests in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Waits until the last request has left. Of use after [`close`](Self::close).
    pub async fn drained(&self) {
        loop {
            let left = self.left.notified();
            if self.in_flight() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Closes the app and ends it: its shutdown hooks, its background tasks, its runtime's threads.
    /// Blocks for up to about `timeout`. With requests still in it, what they use stays in memory.
    ///
    /// Doing it again does nothing.
    pub fn stop(&self, timeout: Duration) -> Stopped {
        self.close();
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Stopped::default();
        }
        let request = abi::Stop {
            size: size_of::<abi::Stop>(),
            timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX),
            idle: u32::from(self.in_flight() == 0),
        };
        let mut answer = abi::Stopped {
            size: size_of::<abi::Stopped>(),
            tasks: 0,
            timed_out: 0,
        };
        // SAFETY: the app is stopped once; it is closed, so that with no request in it there will
        // be none.
        unsafe { (self.plugin.stop)(self.app, &raw const request, &raw mut answer) };
        Stopped {
            tasks: answer.tasks,
            timed_out: answer.timed_out != 0,
        }
    }
}

/// A request that is in an app.
#[derive(Debug)]
pub struct InFlight(Arc<App>);

impl InFlight {
    /// The app.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.0
    }
}

impl InFlight {
    /// The same request, counted once more: for what outlives its response.
    pub(super) fn again(&self) -> Self {
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1
            && self.0.closed.load(Ordering::SeqCst)
        {
            self.0.left.notify_waiters();
        }
    }
}

/// What was found when an app was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How many background tasks were still there, and were cancelled.
    pub tasks: u64,
    /// Whether a shutdown hook did not end in time.
    pub timed_out: bool,
}
