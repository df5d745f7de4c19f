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
    /// Since when it has been waiting for its client, in ms since `opened`.
    since: AtomicU64,
    /// What it waits for, while no request is being answered; or [`ROOM`].
    waits: AtomicU32,
    /// Told when an app gives back a connection that it had taken over.
    given_back: Notify,
    /// Whether a timer or signal of the connection has woken it.
    alarmed: AtomicBool,
    /// The task of the connection.
    task: Mutex<Option<Waker>>,
}

/// It waits for a request, of which there is nothing yet.
const REQUEST: u32 = 0;
/// Bytes came, which may be a whole head.
const BYTES: u32 = 1;
/// It waits for the rest of a head, and since when is known.
const HEAD: u32 = 2;
/// It waits for the client to take what it was sent.
const ROOM: u32 = 3;

/// Which limit a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// None: it may next be reached then.
    Later(Instant),
    /// No request came for too long.
    Idle,
    /// The head of a request took too long.
    SlowHead,
    /// The client took nothing of a response for too long.
    SlowReader,
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request.
    pub idle: Duration,
    /// For the whole head of one that has begun.
    pub head: Duration,
    /// For the next bytes of a body to come, or to go.
    pub body: Duration,
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
            waits: AtomicU32::new(REQUEST),
            given_back: Notify::new(),
            alarmed: AtomicBool::new(true),
            task: Mutex::default(),
        })
    }

    /// A request's head is complete. It counts as being answered until the result is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Answering {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.waits.store(REQUEST, Ordering::Relaxed);
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
            && self.waits.load(Ordering::Relaxed) == REQUEST
        {
            self.waits.store(BYTES, Ordering::Relaxed);
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

    /// The client takes no more of what it is sent, for now.
    pub fn blocked(&self) {
        if self.waits.load(Ordering::Relaxed) != ROOM {
            self.restart();
            self.waits.store(ROOM, Ordering::Relaxed);
        }
    }

    /// The client took some of it.
    pub fn sent(&self) {
        if self.waits.load(Ordering::Relaxed) == ROOM {
            self.restart();
            self.waits.store(REQUEST, Ordering::Relaxed);
        }
    }

    /// When the client must have sent the rest of a head that is partly there, whose time begins when
    /// this is first called after its first bytes came; or must have taken some of a response.
    #[must_use]
    pub fn limit(&self, patience: Patience) -> Option<Instant> {
        match self.waits.load(Ordering::Relaxed) {
            REQUEST => None,
            ROOM => Some(self.since() + patience.body),
            _ if self.is_answering() => None,
            HEAD => Some(self.since() + patience.head),
            _ => {
                self.waits.store(HEAD, Ordering::Relaxed);
                self.restart();
                Some(self.since() + patience.head)
            }
        }
    }

    /// Which limit is reached now.
    #[must_use]
    pub fn due(&self, patience: Patience) -> Due {
        let now = Instant::now();
        // It may wait for something else by then, and not as long.
        let later = |limit: Instant| Due::Later(limit.min(now + patience.idle));
        let (limit, due) = match self.limit(patience) {
            Some(limit) if self.waits.load(Ordering::Relaxed) == ROOM => (limit, Due::SlowReader),
            Some(limit) => (limit, Due::SlowHead),
            None if self.is_answering() => return later(now + patience.idle),
            None => (self.since() + patience.idle, Due::Idle),
        };
        if limit <= now { due } else { later(limit) }
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
