//! The state of a connection that its time limits depend on.
//!
//! A connection has two time limits: how long it may be idle between two requests, and how long the head
//! of a request may take. hyper has one timer for heads, which also runs while a connection is idle, so
//! the two limits could not differ. Here a request costs a few relaxed stores and no timer of its own.
//! The connection has one timer; when the timer fires, [`Activity::check_timeouts`] says whether a limit
//! was reached and when to look again.
//!
//! An [`Activity`] is also a waker. The timer and the shutdown signals of a connection get it in place of
//! the task's waker. It stores that one of them fired, and wakes the task. So a task that the socket woke
//! polls neither timer nor signals.

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

/// The state of one connection. Shared by its socket, its requests and its timer.
///
/// Only the task of the connection changes what concerns HTTP/1, and over HTTP/2 the exact order of
/// changes does not matter. So all atomics but `woken` are relaxed.
#[derive(Debug)]
pub struct Activity {
    /// Whether the connection speaks HTTP/1. Bytes of HTTP/2 do not show where a head begins.
    is_http1: bool,
    /// When the first byte of the connection came.
    opened_at: Instant,
    /// The time of `opened_at` by [`coarse_ms`].
    opened_ms: u64,
    /// How many requests are in flight on this connection.
    in_flight: AtomicU32,
    /// Since when the connection has been waiting for its client, in ms after `opened_at`.
    waiting_since: AtomicU64,
    /// The next thing that the client has to send while no request is in flight: [`NEW_REQUEST`], [`MAYBE_HEAD`] or
    /// [`REST_OF_HEAD`].
    waiting_for: AtomicU32,
    /// The end of the bytes that hyper has received.
    received: Received,
    /// Notified when an app drops a connection that it had taken over.
    upgrade_ended: Notify,
    /// Whether a timer or signal has woken this waker since the last [`take_woken`](Self::take_woken).
    woken: AtomicBool,
    /// The waker of the connection's task.
    task: Mutex<Option<Waker>>,
}

/// No byte of the next request has come yet.
const NEW_REQUEST: u32 = 0;
/// Bytes came that may be a whole head. If they are, hyper begins a request.
const MAYBE_HEAD: u32 = 1;
/// Bytes came and hyper made no request of them, so that they are a part of a head. The time for the rest of
/// the head runs.
const REST_OF_HEAD: u32 = 2;

/// How the bytes end that hyper has received over HTTP/1.
///
/// A client may send the beginning of its next request together with the one before (pipelining). hyper
/// keeps such bytes and does not tell, so their time limit would not begin. The socket therefore stores
/// where the received bytes end, and the request's body where the body ends: if the two differ, bytes of
/// the next request are there.
#[derive(Debug, Default)]
struct Received {
    /// The address behind the last received byte. The frames of a body are slices of the same memory, so
    /// that addresses can be compared.
    end: AtomicUsize,
    /// Whether the received bytes end with a blank line, as a head does, and a chunked body.
    is_blank_line: AtomicBool,
    /// How much of the last request's body has been read: [`NO_BODY`] and the following.
    body: AtomicU32,
}

/// The last request has no body.
const NO_BODY: u32 = 0;
/// A part of the body has not been read yet.
const BODY_COMING: u32 = 1;
/// The app dropped the body before its end. hyper may read the rest, or close the connection.
const BODY_DROPPED: u32 = 2;
/// The whole body has been read, and no bytes follow it.
const BODY_READ: u32 = 3;
/// The whole body has been read, and bytes of the next request follow it.
const BODY_READ_AND_MORE: u32 = 4;

impl Received {
    /// Whether bytes are known to follow the last request.
    fn has_more(&self) -> bool {
        match self.body.load(Ordering::Relaxed) {
            NO_BODY => !self.is_blank_line.load(Ordering::Relaxed),
            body => body == BODY_READ_AND_MORE,
        }
    }
}

/// The result of looking at a connection's time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutCheck {
    /// No limit is reached. The next one may be reached at this time.
    Later(Instant),
    /// The client sent no request for too long.
    Idle,
    /// The head of a request took too long.
    SlowHead,
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// How long no request may come.
    pub idle: Duration,
    /// How long the head of a request may take, from its first byte.
    pub header: Duration,
}

impl Activity {
    /// Returns the activity of a connection whose first byte came at `opened_at`.
    #[must_use]
    pub fn new(is_http1: bool, opened_at: Instant) -> Arc<Self> {
        let ago = opened_at.elapsed().as_millis() as u64;
        Arc::new(Self {
            is_http1,
            opened_at,
            opened_ms: coarse_ms().saturating_sub(ago),
            in_flight: AtomicU32::new(0),
            waiting_since: AtomicU64::new(0),
            waiting_for: AtomicU32::new(if is_http1 { REST_OF_HEAD } else { NEW_REQUEST }),
            received: Received::default(),
            upgrade_ended: Notify::new(),
            woken: AtomicBool::new(true),
            task: Mutex::default(),
        })
    }

    /// Whether the connection speaks HTTP/1.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        self.is_http1
    }

    /// Counts a request, whose head is complete, as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.waiting_for.store(NEW_REQUEST, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Whether a request is in flight.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Counts the connection as busy while an app has it, or may take it: until the guard is dropped.
    #[must_use]
    pub fn begin_upgrade(self: &Arc<Self>) -> UpgradeGuard {
        UpgradeGuard {
            request: Some(self.begin_request()),
            activity: Arc::clone(self),
        }
    }

    /// Waits until no app has the connection any more, and no request is in flight.
    pub async fn wait_idle(&self) {
        loop {
            // Registered before the count is read, so that a notification between the two is not lost.
            let upgrade_ended = self.upgrade_ended.notified();
            if !self.is_busy() {
                return;
            }
            upgrade_ended.await;
        }
    }

    /// Stores that bytes came over HTTP/1, up to the address `end`.
    ///
    /// Usually the bytes are a whole head, and hyper calls [`begin_request`](Self::begin_request) a
    /// moment later. So this does not read the clock.
    pub fn bytes_received(&self, end: usize, is_blank_line: bool) {
        let received = &self.received;
        // Each read overwrites what the one before has stored: only the end of all bytes matters.
        received.end.store(end, Ordering::Relaxed);
        received
            .is_blank_line
            .store(is_blank_line, Ordering::Relaxed);
        if received.body.load(Ordering::Relaxed) == BODY_READ {
            // The body was complete and nothing followed it, so that these bytes begin the next head.
            received.body.store(NO_BODY, Ordering::Relaxed);
        }
        if self.waiting_for.load(Ordering::Relaxed) == NEW_REQUEST && !self.is_busy() {
            self.waiting_for.store(MAYBE_HEAD, Ordering::Relaxed);
        }
    }

    /// Stores that hyper asked for more bytes over HTTP/1 than have come.
    ///
    /// When no request is in flight, hyper wants the head of the next request. A part of that head may
    /// have come together with the request before.
    pub fn bytes_wanted(&self) {
        if self.waiting_for.load(Ordering::Relaxed) == NEW_REQUEST
            && !self.is_busy()
            && self.received.has_more()
        {
            self.waiting_for.store(MAYBE_HEAD, Ordering::Relaxed);
        }
    }

    /// Stores whether the request that begins over HTTP/1 has a body that is still to come.
    pub fn body_begins(&self, is_coming: bool) {
        let body = if is_coming { BODY_COMING } else { NO_BODY };
        self.received.body.store(body, Ordering::Relaxed);
    }

    /// Stores that the whole body of a request has been read: up to the address `end`, or up to a blank
    /// line when the body is chunked.
    pub fn body_ends(&self, end: Option<usize>) {
        let received = &self.received;
        let has_more = match end {
            Some(end) => end != received.end.load(Ordering::Relaxed),
            None => !received.is_blank_line.load(Ordering::Relaxed),
        };
        let body = if has_more {
            BODY_READ_AND_MORE
        } else {
            BODY_READ
        };
        received.body.store(body, Ordering::Relaxed);
    }

    /// Stores that the app dropped a request's body before its end.
    pub fn body_dropped(&self) {
        self.received.body.store(BODY_DROPPED, Ordering::Relaxed);
    }

    /// Stores that hyper is about to shut the connection down. When no request is in flight, hyper has
    /// read or skipped the rest of the last body.
    pub fn shutdown_begins(&self) {
        if !self.is_busy() {
            self.received.body.store(BODY_READ, Ordering::Relaxed);
        }
    }

    /// Whether the last request's body was not read to its end, so that its client may still send it.
    #[must_use]
    pub fn is_body_unread(&self) -> bool {
        matches!(
            self.received.body.load(Ordering::Relaxed),
            BODY_COMING | BODY_DROPPED
        )
    }

    /// Begins a new wait for the client now.
    pub fn restart_wait(&self) {
        let now = coarse_ms().saturating_sub(self.opened_ms);
        self.waiting_since.store(now, Ordering::Relaxed);
    }

    /// Wakes `task` from now on whenever this waker is woken.
    pub fn register_task(&self, task: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }

    /// Whether this waker was woken since the last call. True for the first call.
    pub fn take_woken(&self) -> bool {
        // Load first: a swap on every poll would be an atomic write. `wake_by_ref` stores the flag
        // before it wakes the task, so the load cannot miss it.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }

    /// Returns when the rest of a head must have come, if a part of a head is there. The time of a head
    /// begins with the first call after the head's first bytes.
    #[must_use]
    pub fn head_deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        match self.waiting_for.load(Ordering::Relaxed) {
            NEW_REQUEST => None,
            _ if self.is_busy() => None,
            REST_OF_HEAD => Some(self.waiting_since() + timeouts.header),
            _ => {
                self.waiting_for.store(REST_OF_HEAD, Ordering::Relaxed);
                self.restart_wait();
                Some(self.waiting_since() + timeouts.header)
            }
        }
    }

    /// Returns the limit that is reached now, or when to look again.
    #[must_use]
    pub fn check_timeouts(&self, timeouts: Timeouts) -> TimeoutCheck {
        let now = Instant::now();
        // At the latest after `idle`, because until then the connection may begin to wait for something
        // else that has less time.
        let later = |deadline: Instant| TimeoutCheck::Later(deadline.min(now + timeouts.idle));
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

    fn waiting_since(&self) -> Instant {
        self.opened_at + Duration::from_millis(self.waiting_since.load(Ordering::Relaxed))
    }
}

impl Wake for Activity {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().map(Waker::wake_by_ref);
    }
}

/// Counts a request as in flight on its connection, up to the last byte of the response's body.
#[derive(Debug)]
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // In this order: the timer must not see an idle connection with the time of an earlier wait.
        self.0.restart_wait();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as busy while an app has it, or may take it.
#[derive(Debug)]
pub struct UpgradeGuard {
    /// None only during the drop.
    request: Option<RequestGuard>,
    activity: Arc<Activity>,
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        // The request has to be counted out before those who wait look at the count.
        self.request = None;
        self.activity.upgrade_ended.notify_waiters();
    }
}
