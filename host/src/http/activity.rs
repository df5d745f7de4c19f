//! What a connection is doing, as far as its time limits need it.
//!
//! hyper has one timer for the head of a request, which also runs while a connection is idle
//! between two. Here the two are apart, and cost a request a few stores and no timer of its own: a
//! connection has one timer, which when it fires looks here and is set again. Timer and signals are
//! polled only when one of them has woken the connection, which is what the [`Activity`] is a waker
//! for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use tokio::{sync::Notify, time::Instant};

/// What one connection is doing. Shared by its socket, its requests and its timer.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    /// The same moment by [`coarse_ms`].
    opened_ms: u64,
    /// How many requests are being answered.
    requests: AtomicU32,
    /// Since when it has been waiting for a request, or for the rest of one's head, in ms since
    /// `opened`.
    since: AtomicU64,
    /// Whether a part of a head is there: [`NOTHING`], [`BYTES`], or [`PART`].
    reading: AtomicU32,
    /// Told when an app gives back a connection that it had taken over.
    given_back: Notify,
    /// Whether a timer or signal of the connection has woken it.
    alarmed: AtomicBool,
    /// The task of the connection.
    task: Mutex<Option<Waker>>,
}

/// No part of a head.
const NOTHING: u32 = 0;
/// Bytes came, which may be a whole head.
const BYTES: u32 = 1;
/// A part of a head came, and since when is known.
const PART: u32 = 2;

/// Which limit a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// None: it may next be reached then.
    Later(Instant),
    /// No request came for too long.
    Idle,
    /// The head of a request took too long.
    SlowHead,
}

impl Activity {
    /// A connection that was opened now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            opened_ms: coarse_ms(),
            requests: AtomicU32::new(0),
            since: AtomicU64::new(0),
            reading: AtomicU32::new(0),
            given_back: Notify::new(),
            alarmed: AtomicBool::new(true),
            task: Mutex::default(),
        })
    }

    /// A request's head is complete. It counts as being answered until the result is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Answering {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.reading.store(NOTHING, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Whether a request is being answered.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// An app may take the connection over. That counts as a request, until the result is dropped.
    #[must_use]
    pub fn taken_over(self: &Arc<Self>) -> TakenOver {
        TakenOver {
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

    /// Bytes came. Most often they are a whole head, and it is never asked since when.
    pub fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0
            && self.reading.load(Ordering::Relaxed) == NOTHING
        {
            self.reading.store(BYTES, Ordering::Relaxed);
        }
    }

    fn restart(&self) {
        let now = coarse_ms().saturating_sub(self.opened_ms);
        self.since.store(now, Ordering::Relaxed);
    }

    /// Has alarms wake this task.
    pub fn alarm(&self, task: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }

    /// Whether this was woken as a waker since this was last asked; true at first.
    pub fn take_alarm(&self) -> bool {
        // The look is cheap; who has it woken did so before.
        self.alarmed.load(Ordering::Acquire) && self.alarmed.swap(false, Ordering::AcqRel)
    }

    /// When the head of a request that is partly there must be complete: its time begins when this is
    /// first called after its first bytes came.
    #[must_use]
    pub fn head_limit(&self, head: Duration) -> Option<Instant> {
        let reading = self.reading.load(Ordering::Relaxed);
        if reading == NOTHING || self.requests.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if reading == BYTES {
            self.reading.store(PART, Ordering::Relaxed);
            self.restart();
        }
        Some(self.since() + head)
    }

    /// Which limit is reached now.
    #[must_use]
    pub fn due(&self, idle: Duration, head: Duration) -> Due {
        let now = Instant::now();
        let (limit, due) = if self.requests.load(Ordering::Relaxed) > 0 {
            return Due::Later(now + idle);
        } else if let Some(limit) = self.head_limit(head) {
            (limit, Due::SlowHead)
        } else {
            (self.since() + idle, Due::Idle)
        };
        if limit <= now { due } else { Due::Later(limit) }
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
        self.alarmed.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().map(Waker::wake_by_ref);
    }
}

/// The time in ms, from any moment and to a few of them, but for a fraction of what it costs to have
/// it exactly (clock_gettime(2)).
fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}

/// A request that is being answered, up to the last byte of the response's body.
#[derive(Debug)]
pub struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.restart();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that an app has taken over, or may take over.
#[derive(Debug)]
pub struct TakenOver {
    /// Some until it is dropped.
    answering: Option<Answering>,
    activity: Arc<Activity>,
}

impl Drop for TakenOver {
    fn drop(&mut self) {
        self.answering = None;
        self.activity.given_back.notify_waiters();
    }
}
