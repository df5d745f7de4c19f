//! The activity of a connection: how many requests are in flight, and since when the client has sent nothing.
//!
//! A connection has two time limits: the idle time between two requests, and the time for the head of a
//! request. hyper's own time limit is not used, because hyper has a single timer for both. Here a connection has
//! one timer, and a request costs a few relaxed stores. When the timer fires, [`Activity::check_timeouts`]
//! returns whether a limit is reached, and when to check again.
//!
//! An [`Activity`] is also a waker: the timer and the shutdown signals of a connection are polled with the
//! `Activity` in place of the waker of the task. When one of them fires, the `Activity` sets a flag and wakes the
//! task. The flag is not set when the socket wakes the task, and the task then polls neither timer nor signals.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::scoreboard::coarse_ms;

/// The activity of one connection. The socket, the requests and the driver of the connection share it.
///
/// All atomics except `is_woken` are relaxed: over HTTP/1 the socket and the driver run in the same task, and over
/// HTTP/2 the exact order of the changes does not matter.
#[derive(Debug)]
pub struct Activity {
    /// Whether the connection speaks HTTP/1. Over HTTP/2 the received bytes are not tracked, because the socket
    /// cannot see in them where a head begins.
    is_http1: bool,
    /// When the first byte of the connection was received.
    first_byte_at: Instant,
    /// The time of `first_byte_at`, in milliseconds of the clock [`coarse_ms`].
    first_byte_ms: u64,
    /// The number of requests in flight on this connection.
    in_flight: AtomicU32,
    /// When the connection began to wait for its client, in milliseconds after `first_byte_at`.
    waiting_since: AtomicU64,
    /// The bytes that the client has to send next while no request is in flight: [`NEW_REQUEST`], [`MAYBE_HEAD`] or
    /// [`REST_OF_HEAD`].
    waiting_for: AtomicU32,
    /// The end of the received bytes, to detect pipelined bytes. Used for HTTP/1 only.
    received: ReceivedBytes,
    /// Notified when an app drops an upgraded connection.
    upgrade_ended: Notify,
    /// Whether the timer or a signal has fired since the last call of [`take_woken`](Self::take_woken).
    is_woken: AtomicBool,
    /// The waker of the connection's task.
    task_waker: Mutex<Option<Waker>>,
}

/// No byte of the next request has been received yet.
const NEW_REQUEST: u32 = 0;
/// Bytes were received that may be a complete head. If the head is complete, hyper calls the service next.
const MAYBE_HEAD: u32 = 1;
/// A part of a head was received: hyper has read the bytes, and did not call the service. The time limit of the
/// head runs.
const REST_OF_HEAD: u32 = 2;

/// Where the bytes end that the socket has received over HTTP/1.
///
/// A client may send the beginning of its next request together with the current request (pipelining). hyper
/// buffers such bytes and does not report them, and without a report the time limit of the next head would not
/// begin. The socket therefore stores where the received bytes end, and the request's body stores where the body
/// ends. If the two ends differ, bytes of the next request were received.
#[derive(Debug, Default)]
struct ReceivedBytes {
    /// The memory address behind the last received byte. The frames of a body are slices of hyper's read buffer,
    /// and the addresses of both can be compared. The address is never dereferenced.
    end: AtomicUsize,
    /// Whether the received bytes end with an empty line, as a head and a chunked body do.
    ends_with_empty_line: AtomicBool,
    /// How much of the last request's body has been read: one of the constants from [`NO_BODY`] to
    /// [`BODY_READ_THEN_MORE`].
    body_progress: AtomicU32,
}

/// The last request has no body.
const NO_BODY: u32 = 0;
/// The body has not been read to its end yet.
const BODY_COMING: u32 = 1;
/// The app dropped the body before its end. hyper may read the rest, or close the connection.
const BODY_DROPPED: u32 = 2;
/// The whole body has been read, and no bytes were received after its end.
const BODY_READ: u32 = 3;
/// The whole body has been read, and bytes of the next request were received after its end.
const BODY_READ_THEN_MORE: u32 = 4;

impl ReceivedBytes {
    /// Returns whether bytes of the next request are known to have been received with the last request.
    fn has_pipelined_bytes(&self) -> bool {
        match self.body_progress.load(Ordering::Relaxed) {
            // A request without a body ends with the empty line of its head.
            NO_BODY => !self.ends_with_empty_line.load(Ordering::Relaxed),
            progress => progress == BODY_READ_THEN_MORE,
        }
    }
}

/// The result of [`Activity::check_timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutCheck {
    /// No limit is reached. The limits have to be checked again at this time.
    CheckAgainAt(Instant),
    /// The client sent no request for [`Timeouts::idle`].
    Idle,
    /// The head of a request was not complete after [`Timeouts::header`].
    SlowHead,
}

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// How long a client may send no request.
    pub idle: Duration,
    /// How long the head of a request may take, from its first byte.
    pub header: Duration,
}

impl Activity {
    /// Creates the activity of a connection whose first byte was received at `first_byte_at`.
    #[must_use]
    pub fn new(is_http1: bool, first_byte_at: Instant) -> Arc<Self> {
        let ago = first_byte_at.elapsed().as_millis() as u64;
        Arc::new(Self {
            is_http1,
            first_byte_at,
            first_byte_ms: coarse_ms().saturating_sub(ago),
            in_flight: AtomicU32::new(0),
            waiting_since: AtomicU64::new(0),
            // The first byte of an HTTP/1 connection is the first byte of a head.
            waiting_for: AtomicU32::new(if is_http1 { REST_OF_HEAD } else { NEW_REQUEST }),
            received: ReceivedBytes::default(),
            upgrade_ended: Notify::new(),
            // Set from the start, because the first poll has to register the timer and the signals.
            is_woken: AtomicBool::new(true),
            task_waker: Mutex::default(),
        })
    }

    /// Returns whether the connection speaks HTTP/1.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        self.is_http1
    }

    /// Counts a request as in flight until the guard is dropped. The head of the request is complete.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.waiting_for.store(NEW_REQUEST, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Returns whether a request is in flight, or an app has the connection.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Counts the connection as busy until the guard is dropped: while an app may take the connection over, and
    /// while an app has it.
    #[must_use]
    pub fn begin_upgrade(self: &Arc<Self>) -> UpgradeGuard {
        UpgradeGuard {
            request: Some(self.begin_request()),
            activity: Arc::clone(self),
        }
    }

    /// Waits until no app has the connection, and no request is in flight.
    pub async fn wait_idle(&self) {
        loop {
            // Created before the count is read, because a notification between the two would otherwise be lost.
            let upgrade_ended = self.upgrade_ended.notified();
            if !self.is_busy() {
                return;
            }
            upgrade_ended.await;
        }
    }

    /// Records that the socket has received bytes over HTTP/1. `end` is the address behind the last byte.
    ///
    /// The function does not read the clock, because the bytes are usually a complete head, and
    /// [`begin_request`](Self::begin_request) is called next.
    pub fn on_bytes_received(&self, end: usize, ends_with_empty_line: bool) {
        let received = &self.received;
        // Each read overwrites the end that the previous read stored, because only the end of all bytes matters.
        received.end.store(end, Ordering::Relaxed);
        received
            .ends_with_empty_line
            .store(ends_with_empty_line, Ordering::Relaxed);
        if received.body_progress.load(Ordering::Relaxed) == BODY_READ {
            // The body was complete and nothing followed its end, so these bytes begin the next head.
            // From now on the empty line shows whether that head is complete.
            received.body_progress.store(NO_BODY, Ordering::Relaxed);
        }
        // While a request is in flight, the bytes may belong to its body.
        if self.waiting_for.load(Ordering::Relaxed) == NEW_REQUEST && !self.is_busy() {
            self.waiting_for.store(MAYBE_HEAD, Ordering::Relaxed);
        }
    }

    /// Records that hyper tried to read over HTTP/1, and the socket had no bytes.
    ///
    /// When no request is in flight, hyper waits for the head of the next request. A part of that head may have
    /// been received together with the last request. The time limit of the head has to begin then, although no
    /// bytes were received now.
    pub fn on_read_pending(&self) {
        if self.waiting_for.load(Ordering::Relaxed) == NEW_REQUEST
            && !self.is_busy()
            && self.received.has_pipelined_bytes()
        {
            self.waiting_for.store(MAYBE_HEAD, Ordering::Relaxed);
        }
    }

    /// Records that a request begins over HTTP/1, and whether the request has a body.
    pub fn on_body_begin(&self, has_body: bool) {
        let progress = if has_body { BODY_COMING } else { NO_BODY };
        self.received
            .body_progress
            .store(progress, Ordering::Relaxed);
    }

    /// Records that the whole body of a request has been read. `end` is the address behind its last byte, or `None`
    /// if the body ends with an empty line, as a chunked body does.
    pub fn on_body_end(&self, end: Option<usize>) {
        let received = &self.received;
        let has_pipelined_bytes = match end {
            Some(end) => end != received.end.load(Ordering::Relaxed),
            None => !received.ends_with_empty_line.load(Ordering::Relaxed),
        };
        let progress = if has_pipelined_bytes {
            BODY_READ_THEN_MORE
        } else {
            BODY_READ
        };
        received.body_progress.store(progress, Ordering::Relaxed);
    }

    /// Records that the app dropped a request's body before its end.
    pub fn on_body_drop(&self) {
        self.received
            .body_progress
            .store(BODY_DROPPED, Ordering::Relaxed);
    }

    /// Records that the graceful shutdown of hyper is about to start. When no request is in flight, hyper has read or
    /// skipped the rest of the last body, and the client sends nothing more of that body.
    pub fn on_shutdown(&self) {
        if !self.is_busy() {
            self.received
                .body_progress
                .store(BODY_READ, Ordering::Relaxed);
        }
    }

    /// Returns whether the last request's body was not read to its end. The client may still be sending the body
    /// then.
    #[must_use]
    pub fn is_body_unread(&self) -> bool {
        matches!(
            self.received.body_progress.load(Ordering::Relaxed),
            BODY_COMING | BODY_DROPPED
        )
    }

    /// Restarts the time that the connection has waited for its client.
    pub fn restart_wait(&self) {
        let now = coarse_ms().saturating_sub(self.first_byte_ms);
        self.waiting_since.store(now, Ordering::Relaxed);
    }

    /// Sets the waker of the connection's task, which this activity wakes from now on.
    pub fn register_task(&self, task: &Waker) {
        *self
            .task_waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }

    /// Returns whether the timer or a signal has fired since the last call. The first call returns true.
    pub fn take_woken(&self) -> bool {
        // Load first, because a swap on every poll would be an atomic write. `wake_by_ref` sets the flag before it
        // wakes the task, so the poll that follows the wake-up sees the flag.
        self.is_woken.load(Ordering::Acquire) && self.is_woken.swap(false, Ordering::AcqRel)
    }

    /// Returns when the rest of a head has to be received, or `None` if no part of a head was received.
    ///
    /// The driver calls this after every poll of hyper. The time limit of a head begins with the first call after
    /// its first bytes were received.
    #[must_use]
    pub fn head_deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        match self.waiting_for.load(Ordering::Relaxed) {
            NEW_REQUEST => None,
            _ if self.is_busy() => None,
            REST_OF_HEAD => Some(self.waiting_since() + timeouts.header),
            // `MAYBE_HEAD` is still set, although hyper has been polled: the head is not complete.
            _ => {
                self.waiting_for.store(REST_OF_HEAD, Ordering::Relaxed);
                self.restart_wait();
                Some(self.waiting_since() + timeouts.header)
            }
        }
    }

    /// Returns the limit that is reached now, or when to check again.
    #[must_use]
    pub fn check_timeouts(&self, timeouts: Timeouts) -> TimeoutCheck {
        let now = Instant::now();
        // The next check is due after `idle` at the latest: a request may end in the meantime, and the idle time
        // that begins then must not be missed.
        let later =
            |deadline: Instant| TimeoutCheck::CheckAgainAt(deadline.min(now + timeouts.idle));
        let (deadline, reached) = match self.head_deadline(timeouts) {
            Some(deadline) => (deadline, TimeoutCheck::SlowHead),
            None if self.is_busy() => return later(now + timeouts.idle),
            None => (self.waiting_since() + timeouts.idle, TimeoutCheck::Idle),
        };
        if deadline <= now {
            reached
        } else {
            later(deadline)
        }
    }

    /// Returns when the connection began to wait for its client.
    fn waiting_since(&self) -> Instant {
        self.first_byte_at + Duration::from_millis(self.waiting_since.load(Ordering::Relaxed))
    }
}

impl Wake for Activity {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The flag before the wake-up: `take_woken` relies on this order.
        self.is_woken.store(true, Ordering::Release);
        let task = self
            .task_waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        task.as_ref().map(Waker::wake_by_ref);
    }
}

/// Counts a request as in flight on its connection. The guard is dropped together with the response's body.
#[derive(Debug)]
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // The time before the count: otherwise the timer could see an idle connection together with the start of an
        // earlier wait, and close the connection too early.
        self.0.restart_wait();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as busy while an app has its upgraded stream.
#[derive(Debug)]
pub struct UpgradeGuard {
    /// `None` only during the drop.
    request: Option<RequestGuard>,
    activity: Arc<Activity>,
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        // The request leaves the count before the notification, because `wait_idle` reads the count when notified.
        self.request = None;
        self.activity.upgrade_ended.notify_waiters();
    }
}
