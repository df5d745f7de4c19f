//! A started app: counts its requests in flight, pauses and closes the app, drains it, and stops it.

mod guards;
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

use self::guards::UseGuard;
pub use self::guards::{InFlight, Paused};
use crate::abi::{self, OwnedBytes};

/// A started app of a plugin.
///
/// An `App` counts its requests in flight. The host never frees an `App`, so a request can hold a `&'static`
/// reference. The plugin's own object behind the `App` is freed when the app is stopped.
#[derive(Debug)]
pub struct App {
    pub(super) plugin: &'static abi::Plugin,
    /// The plugin's own object. Only the functions of `plugin` may dereference this pointer.
    pub(super) app: *mut c_void,
    /// Whether the app has state for its next generation.
    hands_over: bool,
    /// Whether the plugin calls `lay_out` when the app needs the header fields of a request. If false, every request
    /// includes its header fields.
    pub(super) asks_for_headers: bool,
    /// Whether requests can enter: [`OPEN`], [`PAUSED`] or [`CLOSED`].
    gate: AtomicU8,
    /// The number of [`InFlight`] handles that were created, plus the number of [`UseGuard`]s that exist. The app has
    /// `entered` - `exited` handles and guards now.
    entered: AtomicU64,
    /// The number of [`InFlight`] handles that were dropped.
    exited: AtomicU64,
    /// The number of handles that [`InFlight::second_handle`] has created. `entered` includes them.
    second_handles: AtomicU64,
    /// Whether `stop` was called. The plugin's object may then be freed.
    stopped: AtomicBool,
    /// Locked while [`wake_if_stalled`](Self::wake_if_stalled) calls the plugin, so that `stop` waits until the call
    /// has returned.
    maintenance: Mutex<()>,
    /// True from `drain` until `cancel_drain`. `drain_while_paused` does not change the value. The lock is held while
    /// the plugin is called, so that the plugin receives the changes in the order in which they happen.
    drain_requested: Mutex<bool>,
    /// Notified when the last request has left, and when the gate becomes open or closed.
    changed: Notify,
}

/// A state of the gate: requests can enter.
const OPEN: u8 = 0;
/// A state of the gate: no request can enter until the [`Paused`] is dropped.
const PAUSED: u8 = 1;
/// A state of the gate: no request can enter any more.
const CLOSED: u8 = 2;

// SAFETY: the contract of `abi::Plugin` allows any thread to call its functions with the pointer `app`.
unsafe impl Send for App {}
// SAFETY: the contract of `abi::Plugin` allows any thread to call its functions with the pointer `app`.
unsafe impl Sync for App {}

impl App {
    /// Creates the app that `plugin` has started.
    ///
    /// # Safety
    ///
    /// `initialized` is the result of a successful call of `plugin.init`.
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

    /// Returns a handle of a new request. Returns `None` if the app is paused or closed.
    ///
    /// The request is in flight until the handle is dropped. [`InFlight::call`] moves the handle into the body of the
    /// response, so the handle is dropped with the body.
    #[must_use]
    pub fn enter(&'static self) -> Option<InFlight> {
        // The request is counted before the gate is read, and `close` writes the gate before its caller reads the
        // count. Therefore either this function sees the closed gate, or the caller of `close` sees this request.
        self.entered.fetch_add(1, Ordering::SeqCst);
        if self.gate.load(Ordering::SeqCst) == OPEN {
            return Some(InFlight(self));
        }
        // Dropping the guard undoes the count, and wakes a task that has waited only for this request.
        drop(UseGuard(self));
        None
    }

    /// Returns the number of requests that have entered the app since its start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let second = self.second_handles.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - second
    }

    /// Returns the number of requests in flight. An upgraded connection counts as a request of its own, and a running
    /// hook of the app counts like a request.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // `exited` is read first, because a request may exit between the two reads. The result is then too large by
        // one. In the other order the result could be too small, and the app could be freed with a request in it.
        let exited = self.exited.load(Ordering::SeqCst);
        self.entered.load(Ordering::SeqCst) - exited
    }

    /// Closes the app: no request can enter any more. Requests in flight continue.
    pub fn close(&self) {
        self.gate.store(CLOSED, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Pauses the app: no request can enter until the result is dropped. Returns `None` if the app is already paused
    /// or is closed.
    #[must_use]
    pub fn pause(&'static self) -> Option<Paused> {
        self.change_gate(OPEN, PAUSED).then(|| Paused(self))
    }

    /// Waits while the app is paused.
    pub async fn resumed(&self) {
        self.wait_until(|| self.gate.load(Ordering::SeqCst) != PAUSED)
            .await;
    }

    /// Waits until no request is in flight. The caller must have [closed](Self::close) or [paused](Self::pause) the
    /// app, because new requests would enter otherwise.
    pub async fn drained(&self) {
        self.wait_until(|| self.in_flight() == 0).await;
    }

    /// Makes the futures of `Context::draining` ready in the app. Does nothing for a plugin of an ABI before 1.3.
    ///
    /// Call this on a thread that may block. The wakers of the tasks that wait for `Context::draining` run on this
    /// thread, and a waker may be the author's code.
    pub fn drain(&self) {
        let mut requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *requested = true;
        self.notify_draining(true);
    }

    /// Undoes [`drain`](Self::drain): the app continues to serve, because the generation after it is rolled back.
    pub fn cancel_drain(&self) {
        let mut requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *requested = false;
        self.notify_draining(false);
    }

    /// Makes the futures of `Context::draining` ready while the app is [paused](Self::pause). Does nothing if the app
    /// is not paused. The end of the pause undoes this call.
    pub fn drain_while_paused(&self) {
        let _requested = self
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.gate.load(Ordering::SeqCst) == PAUSED {
            self.notify_draining(true);
        }
    }

    /// Notifies the plugin that the draining starts or ends. The caller holds the lock of `drain_requested`.
    fn notify_draining(&self, draining: bool) {
        let Some(drain) = self.plugin.drain else {
            return;
        };
        // Counted like a request, so that `stop` does not free the app, see `UseGuard`.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _guard = UseGuard(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the plugin does not free the app while the guard exists.
            unsafe { drain(self.app, draining.into()) };
        }
    }

    /// Returns whether the app has state for the next generation.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// Returns the state with which the next generation starts. No request may be in flight. Blocks for up to about
    /// `timeout`. The app can continue to serve after this call.
    ///
    /// # Errors
    ///
    /// Returns an error if the author's hook fails, panics or exceeds `timeout`, or if the app is stopped.
    pub fn hand_over(&self, timeout: Duration) -> Result<Bytes, HandoverError> {
        // Counted like a request, so that `stop` does not free the app, see `UseGuard`.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _guard = UseGuard(self);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(HandoverError("it is stopped".to_owned()));
        }
        let parameters = abi::HandOver {
            size: size_of::<abi::HandOver>(),
            timeout_ms: millis(timeout),
        };
        let mut result = abi::HandedOver {
            size: size_of::<abi::HandedOver>(),
            state: OwnedBytes::EMPTY,
            message: OwnedBytes::EMPTY,
        };
        // SAFETY: the plugin does not free the app while the guard exists.
        let failed =
            unsafe { (self.plugin.hand_over)(self.app, &raw const parameters, &raw mut result) };
        if failed == 0 {
            return Ok(result.state.into());
        }
        let message = String::from_utf8_lossy(result.message.as_ref());
        Err(HandoverError(message.into_owned()))
    }

    /// Closes the app, runs its shutdown hooks, cancels its background tasks and shuts down its runtime. Blocks for up
    /// to about `timeout`. If requests are in flight, the plugin does not free the app, because the requests use it.
    ///
    /// A second call does nothing.
    pub fn stop(&self, timeout: Duration) -> Stopped {
        self.close();
        // Waits until a running `wake_if_stalled` has returned. The lock is released before the plugin is called,
        // because otherwise the next `wake_if_stalled` would wait for the whole stop.
        let maintenance = self.maintenance.lock();
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Stopped::default();
        }
        drop(maintenance);
        let parameters = abi::Stop {
            size: size_of::<abi::Stop>(),
            timeout_ms: millis(timeout),
            // Read after `stopped` is set, see `UseGuard`.
            idle: u32::from(self.in_flight() == 0),
        };
        let mut result = abi::Stopped {
            size: size_of::<abi::Stopped>(),
            tasks: 0,
            timed_out: 0,
        };
        // SAFETY: `stopped` was false, so this is the first stop. The app is closed and stopped, so if no request and
        // no guard is in the app now, none can enter any more.
        unsafe { (self.plugin.stop)(self.app, &raw const parameters, &raw mut result) };
        running::remove(self);
        Stopped {
            tasks: result.tasks,
            timed_out: result.timed_out != 0,
        }
    }

    /// Notifies an app that has handed over its state that no new generation replaces it. Blocks for up to about
    /// `timeout`, until the hook of `on_handover_failed` has ended. Does nothing for a plugin of an ABI before 1.4.
    ///
    /// Call this before requests enter the app again, because they need the resources that the hook acquires.
    pub fn cancel_handover(&self, timeout: Duration) {
        let Some(go_on) = self.plugin.go_on else {
            return;
        };
        // Counted like a request, so that `stop` does not free the app, see `UseGuard`.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _guard = UseGuard(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the plugin does not free the app while the guard exists.
            unsafe { go_on(self.app, millis(timeout)) };
        }
    }

    /// Notifies the app that all earlier generations of the app have ended. Does nothing for a plugin of an ABI before
    /// 1.4.
    pub(super) fn notify_previous_ended(&self) {
        let Some(alone) = self.plugin.alone else {
            return;
        };
        // Counted like a request, so that `stop` does not free the app, see `UseGuard`.
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _guard = UseGuard(self);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: the plugin does not free the app while the guard exists.
            unsafe { alone(self.app) };
        }
    }

    /// Wakes an idle thread of the app's runtime if a blocked thread keeps the runtime from serving its timers and
    /// sockets. Does nothing for a plugin of an ABI before 1.4.
    pub(super) fn wake_if_stalled(&self) {
        let Some(look_after) = self.plugin.look_after else {
            return;
        };
        // A lock instead of a `UseGuard`, because a guard counts as a request in flight. This function runs every 50
        // ms, and `stop` would sometimes leave the app in memory because of it.
        let _maintenance = self
            .maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.stopped.load(Ordering::SeqCst) {
            // SAFETY: `stop` needs the lock before it frees the app, and this thread holds the lock.
            unsafe { look_after(self.app) };
        }
    }

    /// Changes the gate from one state to another. Returns false if the gate was in a third state.
    fn change_gate(&self, from: u8, to: u8) -> bool {
        self.gate
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn notify_if_drained(&self) {
        // While the gate is open, no task waits for the end of the requests.
        if self.gate.load(Ordering::SeqCst) != OPEN && self.in_flight() == 0 {
            self.changed.notify_waiters();
        }
    }

    async fn wait_until(&self, condition: impl Fn() -> bool) {
        loop {
            // Created before the condition is checked, because the future receives every notification after its
            // creation. A change between the check and the `await` is therefore not missed.
            let changed = self.changed.notified();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

/// The result of [`App::stop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// The number of background tasks that the plugin has cancelled.
    pub tasks: u64,
    /// Whether a shutdown hook did not end in time.
    pub timed_out: bool,
}

/// The reason why an app returned no state, as text for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandoverError(String);

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
