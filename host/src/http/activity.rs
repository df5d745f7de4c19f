//! What a connection is doing, as far as its time limits need it.
//!
//! hyper has one timer for the head of a request, which also runs while a connection is idle
//! between two. Here the two are apart, and cost a request a few stores and no timer of its own: a
//! connection has one timer, which looks here when it fires, and is set again. Timer and signals are
//! polled only after one of them has woken the connection. [`Activity`] is the waker that they get,
//! so it knows.

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

/// What one connection is doing. Shared by its socket, its requests and its timer.
#[derive(Debug)]
pub struct Activity {
    /// Whether the connection speaks HTTP/1. The bytes of HTTP/2 are no sign of a request's head.
    is_http1: bool,
    /// When its first byte came.
    opened: Instant,
    /// The same moment by [`coarse_ms`].
    opened_ms: u64,
    /// How many requests are being answered.
    requests: AtomicU32,
    /// Since when the connection has been waiting for its client, in ms since `opened`.
    since: AtomicU64,
    /// What the connection waits for while no request is being answered: [`REQUEST`], [`BYTES`] or
    /// [`HEAD`].
    waits: AtomicU32,
    /// What came last.
    received: Received,
    /// Told when an app gives back a connection that it had taken over.
    given_back: Notify,
    /// Whether a timer or signal of the connection has woken it.
    woken: AtomicBool,
    /// The task of the connection.
    task: Mutex<Option<Waker>>,
}

/// No byte of the next request has come yet.
const REQUEST: u32 = 0;
/// Bytes came, which may be a whole head.
const BYTES: u32 = 1;
/// The rest of a head has to come, and since when is known.
const HEAD: u32 = 2;

/// How the bytes that hyper has of an HTTP/1 connection end. hyper does not tell whether a part of the
/// next head is behind the request that it has read, but the next head has to come in time.
#[derive(Debug, Default)]
struct Received {
    /// The address behind the last byte. The pieces of a body are slices of what was received.
    end: AtomicUsize,
    /// Whether the last bytes end a head, or a chunked body.
    is_blank_line: AtomicBool,
    /// What is known of the body of the last request: [`NO_BODY`] and so on.
    body: AtomicU32,
}

/// There is none.
const NO_BODY: u32 = 0;
/// Some of the body has not been read yet.
const COMING: u32 = 1;
/// The body was dropped before its end. What hyper does with the rest, hyper does not tell.
const DROPPED: u32 = 2;
/// The body has been read, and nothing is behind it.
const READ: u32 = 3;
/// The body has been read, and something is behind it.
const READ_AND_MORE: u32 = 4;

impl Received {
    /// Whether bytes are known to be behind the last request.
    fn has_more(&self) -> bool {
        match self.body.load(Ordering::Relaxed) {
            NO_BODY => !self.is_blank_line.load(Ordering::Relaxed),
            body => body == READ_AND_MORE,
        }
    }
}

/// Which time limit a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutCheck {
    /// None: one may next be reached then.
    Later(Instant),
    /// No request came for too long.
    Idle,
    /// The head of a request took too long.
    SlowHead,
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a request.
    pub idle: Duration,
    /// For the whole head of a request that has begun.
    pub head: Duration,
}

impl Activity {
    /// A connection whose first byte came `opened`.
    #[must_use]
    pub fn new(is_http1: bool, opened: Instant) -> Arc<Self> {
        let ago = opened.elapsed().as_millis() as u64;
        Arc::new(Self {
            is_http1,
            opened,
            opened_ms: coarse_ms().saturating_sub(ago),
            requests: AtomicU32::new(0),
            since: AtomicU64::new(0),
            waits: AtomicU32::new(if is_http1 { HEAD } else { REQUEST }),
            received: Received::default(),
            given_back: Notify::new(),
            woken: AtomicBool::new(true),
            task: Mutex::default(),
        })
    }

    /// Whether the connection speaks HTTP/1.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        self.is_http1
    }

    /// A request's head is complete. It counts as being answered until the result is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.waits.store(REQUEST, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Whether a request is being answered.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// An app may take the connection over. That counts as a request, until the result is dropped.
    #[must_use]
    pub fn taken_over(self: &Arc<Self>) -> UpgradeGuard {
        UpgradeGuard {
            answering: Some(self.request()),
            activity: Arc::clone(self),
        }
    }

    /// Waits until no app has the connection any more, and no request is being answered.
    pub async fn ended(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.requests.load(Ordering::Relaxed) == 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Bytes came over HTTP/1, up to the address `end`. Most often they are a whole head, and nothing
    /// ever asks since when.
    pub fn received(&self, end: usize, is_blank_line: bool) {
        let received = &self.received;
        received.end.store(end, Ordering::Relaxed);
        received
            .is_blank_line
            .store(is_blank_line, Ordering::Relaxed);
        if received.body.load(Ordering::Relaxed) == READ {
            // What comes behind a body is the next head.
            received.body.store(NO_BODY, Ordering::Relaxed);
        }
        if self.waits.load(Ordering::Relaxed) == REQUEST && !self.is_answering() {
            self.waits.store(BYTES, Ordering::Relaxed);
        }
    }

    /// hyper asked for more bytes over HTTP/1 than have come. When that is for a request, a part of it
    /// may have come together with the one before.
    pub fn asked(&self) {
        if self.waits.load(Ordering::Relaxed) == REQUEST
            && !self.is_answering()
            && self.received.has_more()
        {
            self.waits.store(BYTES, Ordering::Relaxed);
        }
    }

    /// A request came over HTTP/1, and a body of it is to come, or not.
    pub fn body_begins(&self, is_coming: bool) {
        let body = if is_coming { COMING } else { NO_BODY };
        self.received.body.store(body, Ordering::Relaxed);
    }

    /// All of a request's body has been read: up to the address `end`, or up to a blank line when the
    /// body is chunked.
    pub fn body_ends(&self, end: Option<usize>) {
        let received = &self.received;
        let has_more = match end {
            Some(end) => end != received.end.load(Ordering::Relaxed),
            None => !received.is_blank_line.load(Ordering::Relaxed),
        };
        let body = if has_more { READ_AND_MORE } else { READ };
        received.body.store(body, Ordering::Relaxed);
    }

    /// A request's body is dropped before its end.
    pub fn body_dropped(&self) {
        self.received.body.store(DROPPED, Ordering::Relaxed);
    }

    /// The connection is to end. When no request is being answered, hyper has got over whatever was
    /// left of the last one's body.
    pub fn ends(&self) {
        if !self.is_answering() {
            self.received.body.store(READ, Ordering::Relaxed);
        }
    }

    /// Whether the last request's body was not read to its end: its client may still send it.
    #[must_use]
    pub fn is_body_unread(&self) -> bool {
        matches!(self.received.body.load(Ordering::Relaxed), COMING | DROPPED)
    }

    /// The connection has waited for its client until now, and begins to wait for something else.
    pub fn restart(&self) {
        let now = coarse_ms().saturating_sub(self.opened_ms);
        self.since.store(now, Ordering::Relaxed);
    }

    /// This wakes `task` from now on, when it is woken itself.
    pub fn register_task(&self, task: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }

    /// Whether this was woken as a waker since this was last asked; true at first.
    pub fn take_woken(&self) -> bool {
        // Load first: a swap on every poll would be an atomic write. `wake_by_ref` stores the flag
        // before it wakes the task, so the load cannot miss it.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }

    /// When the client must have sent the rest of a head that is partly there. The time begins when
    /// this is first called after the head's first bytes came.
    #[must_use]
    pub fn limit(&self, timeouts: Timeouts) -> Option<Instant> {
        match self.waits.load(Ordering::Relaxed) {
            REQUEST => None,
            _ if self.is_answering() => None,
            HEAD => Some(self.since() + timeouts.head),
            _ => {
                self.waits.store(HEAD, Ordering::Relaxed);
                self.restart();
                Some(self.since() + timeouts.head)
            }
        }
    }

    /// Which limit is reached now.
    #[must_use]
    pub fn check(&self, timeouts: Timeouts) -> TimeoutCheck {
        let now = Instant::now();
        // The connection may wait for something else by then, and not as long.
        let later = |limit: Instant| TimeoutCheck::Later(limit.min(now + timeouts.idle));
        let (limit, reached) = match self.limit(timeouts) {
            Some(limit) => (limit, TimeoutCheck::SlowHead),
            None if self.is_answering() => return later(now + timeouts.idle),
            None => (self.since() + timeouts.idle, TimeoutCheck::Idle),
        };
        if limit <= now { reached } else { later(limit) }
    }

    fn since(&self) -> Instant {
        self.opened + Duration::from_millis(self.since.load(Ordering::Relaxed))
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

/// A request that is being answered, up to the last byte of the response's body.
#[derive(Debug)]
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.restart();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that an app has taken over, or may take over.
#[derive(Debug)]
pub struct UpgradeGuard {
    /// Some until it is dropped.
    answering: Option<RequestGuard>,
    activity: Arc<Activity>,
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.answering = None;
        self.activity.given_back.notify_waiters();
    }
}
