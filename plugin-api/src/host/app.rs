//! A started app: how requests get in, how many are there, and how it ends.

pub(super) mod running;

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

use crate::abi::{self, OwnedBytes};

/// An app of a plugin.
///
/// An `App` counts its requests in flight. Like its library, the `App` stays for the rest of the process, so that
/// a request can hold a plain reference. What the author made is dropped when the app is stopped.
#[derive(Debug)]
pub struct App {
    pub(super) plugin: &'static abi::Plugin,
    pub(super) app: *mut c_void,
    hands_over: bool,
    /// Whether the plugin asks for the header fields of a request, instead of being given them.
    pub(super) asks_for_headers: bool,
    /// [`OPEN`], [`PAUSED`] or [`CLOSED`].
    gate: AtomicU8,
    /// How many handles of requests were made. The difference to `exited` is what is in flight.
    entered: AtomicU64,
    /// How many handles of requests were dropped.
    exited: AtomicU64,
    /// How many of the handles are second ones, made by [`InFlight::second_handle`]. `entered` includes them.
    second_handles: AtomicU64,
    stopped: AtomicBool,
    /// Locked during [`look_after`](Self::look_after), so that `stop` waits until that has returned.
    maintenance: Mutex<()>,
    /// True from `drain` until `go_on`; `drain_while_paused` leaves the value as it is. The lock is held while the
    /// plugin is called, so that the plugin is told of changes in the order in which they happen.
    drain_requested: Mutex<bool>,
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
            exited: AtomicU64::new(0),
            second_handles: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            maintenance: Mutex::new(()),
            drain_requested: Mutex::new(false),
            changed: Notify::new(),
        }
    }

    /// Lets a request in, unless the app is paused or closed.
    ///
    /// The request counts until the result is dropped, which is when its response's body has been
    /// sent.
    #[must_use]
    pub fn enter(&'static self) -> Option<InFlight> {
        // Count first, then read the gate. `close` writes the gate first, and its caller counts then. So either this
        // request sees the closed gate, or the caller of `close` sees this request.
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
        let second = self.second_handles.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - second
    }

    /// How many requests are in the app.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // `exited` is read first: a request that comes or goes in between makes the result too large, never too
        // small.
        let exited = self.exited.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - exited
    }

    /// Lets no more requests in.
    pub fn close(&self) {
        self.gate.store(CLOSED, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Lets no requests in until the result is dropped. None when the app is paused already, or closed.
    #[must_use]
    pub fn pause(&'static self) -> Option<Paused> {
        self.move_gate(OPEN, PAUSED).then(|| Paused(self))
    }

    /// Waits while the app is paused.
    pub async fn resumed(&self) {
        self.wait_until(|| self.gate.load(Ordering::SeqCst) != PAUSED)
            .await;
    }

    /// Waits until no request is in flight. Call it after [`close`](Self::close) or while the app is
    /// [paused](Self::pause), because new requests come in otherwise.
    pub async fn drained(&self) {
        self.wait_until(|| self.in_flight() == 0).await;
    }

    /// Makes `Context::draining` ready in the app. Plugins of an ABI before 1.3 are not told.
    ///
    /// The wakers of all that waits for `Context::draining` run on the calling thread, and may block it: call this
    /// from a thread that may block.
    pub fn drain(&self) {
        let mut requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *requested = true;
        self.tell_draining(true);
    }

    /// Takes [`drain`](Self::drain) back, for the generation before one that is rolled back.
    pub fn go_on(&self) {
        let mut requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *requested = false;
        self.tell_draining(false);
    }

    /// Makes `Context::draining` ready for as long as the app is [paused](Self::pause). Does nothing when it is not.
    pub fn drain_while_paused(&self) {
        let _requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.gate.load(Ordering::SeqCst) == PAUSED {
            self.tell_draining(true);
        }
    }

    fn tell_draining(&self, draining: bool) {
        let Some(drain) = self.plugin.drain else {
            return;
        };
        // Counted as in flight, like a request: `stop` does not free an app that something is in.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not dropped while something is in it.
            unsafe { drain(self.app, draining.into()) };
        }
    }

    /// Whether the app has state for the next generation.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// Asks the app for the state that the next generation starts with. No request may be in flight. Blocks for up
    /// to about `timeout`. The app can serve on afterwards.
    ///
    /// # Errors
    ///
    /// When the author's hook fails, panics, or takes too long, or when the app is stopped.
    pub fn hand_over(&self, timeout: Duration) -> Result<Bytes, HandoverError> {
        // Counted as in flight, like a request: `stop` does not free an app that something is in.
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

    /// Closes the app, runs its shutdown hooks, cancels its background tasks and ends its runtime. Blocks for up to
    /// about `timeout`. If requests are in flight, the app stays in memory, because they use it.
    ///
    /// A second call does nothing.
    pub fn stop(&self, timeout: Duration) -> Stopped {
        self.close();
        let maintenance = self.maintenance.lock();
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Stopped::default();
        }
        drop(maintenance);
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

    /// Tells an app that gave its state that the new generation does not take over. Blocks until the hook of
    /// `on_handover_failed` has ended, for up to about `timeout`. Let requests in only after this. Plugins of an ABI
    /// before 1.4 are not told.
    pub fn take_back(&self, timeout: Duration) {
        let Some(go_on) = self.plugin.go_on else {
            return;
        };
        // Counted as in flight, like a request: `stop` does not free an app that something is in.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the app is not dropped while something is in it.
            unsafe { go_on(self.app, millis(timeout)) };
        }
    }

    /// Tells the app that no earlier generation of the app runs.
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
            .maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the lock is held, so the app is neither stopped nor dropped.
            unsafe { look_after(self.app) };
        }
    }

    fn move_gate(&self, from: u8, to: u8) -> bool {
        self.gate
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn tell_if_drained(&self) {
        if self.gate.load(Ordering::SeqCst) != OPEN && self.in_flight() == 0 {
            self.changed.notify_waiters();
        }
    }

    async fn wait_until(&self, condition: impl Fn() -> bool) {
        loop {
            // Made before the condition is read, so that no notification in between is missed.
            let changed = self.changed.notified();
            if condition() {
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

    /// A second handle for the same request, for what outlives its response.
    pub(super) fn second_handle(&self) -> Self {
        self.0.second_handles.fetch_add(1, Ordering::SeqCst);
        self.0.entered.fetch_add(1, Ordering::SeqCst);
        Self(self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.exited.fetch_add(1, Ordering::SeqCst);
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

/// An app that lets no request in. Dropping this value opens the app again, unless it was closed meanwhile.
#[derive(Debug)]
pub struct Paused(&'static App);

impl Drop for Paused {
    fn drop(&mut self) {
        let Self(app) = self;
        let requested = app
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Told before the gate opens: otherwise a new request would find `Context::draining` ready.
        if !*requested && app.gate.load(Ordering::SeqCst) == PAUSED {
            app.tell_draining(false);
        }
        drop(requested);
        if app.move_gate(PAUSED, OPEN) {
            app.changed.notify_waiters();
        }
    }
}

/// The result of [`App::stop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How many background tasks were cancelled.
    pub tasks: u64,
    /// Whether a shutdown hook did not end in time.
    pub timed_out: bool,
}

/// Why an app gave no state: what the author's hook said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandoverError(String);

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
