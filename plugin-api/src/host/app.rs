//! A started app: how requests get in, how many are there, and how it ends.

use std::{
    ffi::c_void,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::running;
use crate::abi::{self, OwnedBytes};

/// An app of a plugin.
///
/// It counts the requests that are in it. Like its library it stays for the rest of the process, so
/// that a request needs no count of its own to keep it; what the author made ends when it is
/// stopped.
#[derive(Debug)]
pub struct App {
    pub(super) plugin: &'static abi::Plugin,
    pub(super) app: *mut c_void,
    hands_over: bool,
    /// Whether it asks for the header fields of a request.
    pub(super) asks_for_headers: bool,
    gate: AtomicU8,
    /// How many requests were let in.
    entered: AtomicU64,
    /// How many of them have left.
    left: AtomicU64,
    /// How many of them were counted once more than they are requests.
    again: AtomicU64,
    stopped: AtomicBool,
    /// Locked while the app is looked after, so that its end waits for that.
    looked_after: Mutex<()>,
    /// Whether the author's code was told that the app drains, but for a pause. Locked while it is told,
    /// so that what is told last is so.
    drains: Mutex<bool>,
    /// Notified when the last request has left, and when the gate opens again or closes for good.
    changed: Notify,
}

/// The states of the gate.
const OPEN: u8 = 0;
const PAUSED: u8 = 1;
const CLOSED: u8 = 2;

// SAFETY: the contract of `abi::Plugin` lets any thread call the functions with the app.
unsafe impl Send for App {}
// SAFETY: as above.
unsafe impl Sync for App {}

impl App {
    /// # Safety
    ///
    /// `initialized` is what the `init` of `plugin` gave.
    pub(super) unsafe fn new(plugin: &'static abi::Plugin, initialized: &abi::Initialized) -> Self {
        Self {
            plugin,
            app: initialized.app,
            hands_over: initialized.hands_over != 0,
            asks_for_headers: initialized.asks_for_headers != 0,
            gate: AtomicU8::new(OPEN),
            entered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            again: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            looked_after: Mutex::new(()),
            drains: Mutex::new(false),
            changed: Notify::new(),
        }
    }

    /// Lets a request in, unless the app is paused or closed.
    ///
    /// The request counts until the result is dropped, which is when its response's body has been
    /// sent.
    #[must_use]
    pub fn enter(&'static self) -> Option<InFlight> {
        // Count first, then look: `close` closes first, then counts. One of the two sees the other.
        self.entered.fetch_add(1, Ordering::SeqCst);
        if self.gate.load(Ordering::SeqCst) == OPEN {
            return Some(InFlight(self));
        }
        drop(Leave(self));
        None
    }

    /// How many requests were let in, ever.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let again = self.again.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - again
    }

    /// How many requests are in the app.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // In this order: one that enters in between counts too much, and none too little.
        let left = self.left.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - left
    }

    /// Lets no more requests in.
    pub fn close(&self) {
        self.gate.store(CLOSED, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Lets no requests in until the result is dropped. None when it is paused already, or closed.
    #[must_use]
    pub fn pause(&'static self) -> Option<Paused> {
        self.shift(OPEN, PAUSED).then(|| Paused(self))
    }

    /// Waits while the app is paused.
    pub async fn resumed(&self) {
        self.until(|| self.gate.load(Ordering::SeqCst) != PAUSED)
            .await;
    }

    /// Waits until the last request has left. Of use after [`close`](Self::close) and while it is
    /// [paused](Self::pause).
    pub async fn drained(&self) {
        self.until(|| self.in_flight() == 0).await;
    }

    /// Tells the author's code that it is to finish what it has. Plugins of an ABI before 1.3 are not
    /// told. Runs what of it waits for that, so not on a thread that must not wait for an app.
    pub fn drain(&self) {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        *drains = true;
        self.tell_draining(true);
    }

    /// Tells the author's code that it goes on after all, as the one before that is back.
    pub fn go_on(&self) {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        *drains = false;
        self.tell_draining(false);
    }

    /// Tells it the same until it is no longer [paused](Self::pause), if it is.
    pub fn drain_while_paused(&self) {
        let _drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gate.load(Ordering::SeqCst) == PAUSED {
            self.tell_draining(true);
        }
    }

    fn tell_draining(&self, draining: bool) {
        let Some(drain) = self.plugin.drain else {
            return;
        };
        // It is in flight like a request, as in a handover.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not dropped while something is in it.
            unsafe { drain(self.app, draining.into()) };
        }
    }

    /// Whether it has state that the next generation is to start with.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// The state that the next generation is to start with, of an app that hands over and has no
    /// request in it. Blocks for up to about `timeout`. The app can serve on afterwards.
    ///
    /// # Errors
    ///
    /// When the author's hook fails, panics, or takes too long, or when the app is stopped.
    pub fn hand_over(&self, timeout: Duration) -> Result<Bytes, HandoverError> {
        // It is in flight like a request: whoever stops the app leaves it its memory.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(HandoverError("it is stopped".to_owned()));
        }
        let ask = abi::HandOver {
            size: size_of::<abi::HandOver>(),
            timeout_ms: millis(timeout),
        };
        let mut answer = abi::HandedOver {
            size: size_of::<abi::HandedOver>(),
            state: OwnedBytes::EMPTY,
            message: OwnedBytes::EMPTY,
        };
        // SAFETY: the app is not dropped while something is in it.
        let failed = unsafe { (self.plugin.hand_over)(self.app, &raw const ask, &raw mut answer) };
        if failed == 0 {
            return Ok(answer.state.into());
        }
        let message = String::from_utf8_lossy(answer.message.as_ref());
        Err(HandoverError(message.into_owned()))
    }

    /// Closes the app and ends it: its shutdown hooks, its background tasks, its runtime's threads.
    /// Blocks for up to about `timeout`. With requests still in it, what they use stays in memory.
    ///
    /// Doing it again does nothing.
    pub fn stop(&self, timeout: Duration) -> Stopped {
        self.close();
        let looked_after = self.looked_after.lock();
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Stopped::default();
        }
        drop(looked_after);
        let request = abi::Stop {
            size: size_of::<abi::Stop>(),
            timeout_ms: millis(timeout),
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
        running::ended(self);
        Stopped {
            tasks: answer.tasks,
            timed_out: answer.timed_out != 0,
        }
    }

    /// Tells an app that was asked for its state that no new generation takes its place. Blocks until the
    /// author's code has taken back what it let go of, for up to about `timeout`. Requests are to be let in
    /// after that. Plugins of an ABI before 1.4 are not told.
    pub fn take_back(&self, timeout: Duration) {
        let Some(go_on) = self.plugin.go_on else {
            return;
        };
        // It is in flight like a request, as in a handover.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not dropped while something is in it.
            unsafe { go_on(self.app, millis(timeout)) };
        }
    }

    /// Tells the app that no earlier generation of it runs.
    pub(super) fn tell_alone(&self) {
        let Some(alone) = self.plugin.alone else {
            return;
        };
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not dropped while something is in it.
            unsafe { alone(self.app) };
        }
    }

    /// Has the app's runtime wake an idle thread if another one is blocked. Plugins of an ABI before 1.4
    /// do nothing of the kind.
    pub(super) fn look_after(&self) {
        let Some(look_after) = self.plugin.look_after else {
            return;
        };
        let _stays = self
            .looked_after
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not stopped while the lock is held, nor dropped.
            unsafe { look_after(self.app) };
        }
    }

    fn shift(&self, from: u8, to: u8) -> bool {
        self.gate
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn tell_if_drained(&self) {
        if self.gate.load(Ordering::SeqCst) != OPEN && self.in_flight() == 0 {
            self.changed.notify_waiters();
        }
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            // Before the look, so that nothing is missed in between.
            let changed = self.changed.notified();
            if is_so() {
                return;
            }
            changed.await;
        }
    }
}

/// A request that is in an app.
#[derive(Debug)]
pub struct InFlight(&'static App);

impl InFlight {
    /// The app.
    #[must_use]
    pub fn app(&self) -> &'static App {
        self.0
    }

    /// The same request, counted once more: for what outlives its response.
    pub(super) fn again(&self) -> Self {
        self.0.again.fetch_add(1, Ordering::SeqCst);
        self.0.entered.fetch_add(1, Ordering::SeqCst);
        Self(self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::SeqCst);
        self.0.tell_if_drained();
    }
}

/// Something that was counted as entered, but is no request.
struct Leave<'a>(&'a App);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.entered.fetch_sub(1, Ordering::SeqCst);
        self.0.tell_if_drained();
    }
}

/// An app that lets no request in for a while. Dropping this opens it again, unless it was closed
/// meanwhile.
#[derive(Debug)]
pub struct Paused(&'static App);

impl Drop for Paused {
    fn drop(&mut self) {
        let Self(app) = self;
        let drains = app.drains.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it lets a request in, which would hear that it is to end.
        if !*drains && app.gate.load(Ordering::SeqCst) == PAUSED {
            app.tell_draining(false);
        }
        drop(drains);
        if app.shift(PAUSED, OPEN) {
            app.changed.notify_waiters();
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

/// State that an app did not hand over: what the author's hook said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandoverError(String);

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
