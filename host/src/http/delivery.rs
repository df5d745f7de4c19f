//! The delivery of a response to its client. A delivery is aborted when the client reads no bytes for too long, or
//! when the app's generation is aborted.
//!
//! hyper does not poll the body of a response while the client reads no bytes: over HTTP/1 hyper's write buffer is
//! full, over HTTP/2 the stream has no flow-control window. A body therefore cannot check a time limit itself.
//! The task that polls the response checks the limit with a [`Delivery`]. Over HTTP/1 that is the task of the
//! connection, which sends one response at a time. Over HTTP/2 every stream has a task of its own
//! (`Http2Executor`).
//!
//! The task calls hyper, and hyper calls the socket and the body. hyper cannot pass a `Delivery` to them. The
//! task therefore stores a small part of its `Delivery`, the `DeliveryState`, in a thread-local while it polls
//! hyper ([`Delivery::scope`]). The socket and the body update the state with the `on_` functions of this module.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{self, Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{apps::generation::Generation, log::access::RequestOutcome};

/// The delivery of the response that a task sends.
#[derive(Debug)]
pub struct Delivery {
    /// How long the client may read no bytes (`--body-timeout`).
    timeout: Duration,
    state: DeliveryState,
    /// The generation whose response is being sent. `None` if its abort need not be watched.
    generation: Option<Arc<Generation>>,
    /// Fires when the current wait reaches its time limit. Created when the first wait begins, because most deliveries
    /// never wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// Ready when `generation` is aborted. Created at the first poll.
    abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// The part of a delivery that the socket and the body update. The struct is small, because every poll copies it
/// into a thread-local and back.
#[derive(Clone, Copy, Debug, Default)]
struct DeliveryState {
    /// Whether the response is sent on a stream of HTTP/2. Such a stream waits for its own flow-control window, not
    /// for the socket.
    is_http2_stream: bool,
    /// The current wait.
    wait: Wait,
    /// Whether [`Delivery::poll_abort`] has to be called, because a wait has begun or the generation has changed since
    /// the last call.
    needs_poll: bool,
    /// Whether a response is being sent, and the abort of its generation is watched.
    is_watching: bool,
    /// Whether the watched generation has changed while the state was in the thread-local. The new generation is in
    /// [`WATCHED_GENERATION`].
    has_watch_changed: bool,
    /// Why the delivery was aborted. `None` unless it was aborted.
    abort_reason: Option<AbortReason>,
}

/// The event that a delivery waits for. A wait without a time limit counts as `Nothing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    /// No event: no bytes have to be sent, or the client reads all of them.
    #[default]
    Nothing,
    /// The client has to read some bytes.
    Client,
    /// The client has closed its sending side. The app has to provide bytes in time, because only a write shows
    /// whether the client has left.
    HalfClosed,
}

/// Why a delivery is aborted before the whole response has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The generation was aborted, because its time to drain is over.
    Aborted,
    /// The client had closed its sending side, and the app provided no bytes for `HALF_CLOSED_TIMEOUT`.
    ClientGone,
    /// The client read no bytes for `--body-timeout`.
    TooSlow,
}

impl AbortReason {
    /// Returns the outcome of the request for the access log.
    #[must_use]
    pub fn outcome(self) -> RequestOutcome {
        match self {
            Self::Aborted => RequestOutcome::Aborted,
            Self::ClientGone => RequestOutcome::ClientGone,
            Self::TooSlow => RequestOutcome::TimedOut,
        }
    }

    /// Returns the text of the reason for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "the app's time to drain is over",
            Self::ClientGone => "its client has closed its side, and the app has nothing to send",
            Self::TooSlow => "its client took nothing of a response for --body-timeout",
        }
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Delivery {
    /// Creates the delivery of a whole connection. The delivery is aborted if the client reads no bytes for `timeout`.
    #[must_use]
    pub fn of_connection(timeout: Duration) -> Self {
        Self {
            timeout,
            state: DeliveryState::default(),
            generation: None,
            timer: None,
            abort: None,
        }
    }

    /// Creates the delivery of one stream of HTTP/2.
    fn of_stream(timeout: Duration) -> Self {
        let mut delivery = Self::of_connection(timeout);
        delivery.state.is_http2_stream = true;
        delivery
    }

    /// Runs `work`, and lets the socket and the body update the state of this delivery meanwhile.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        // The state is copied in and out, because a reference in a thread-local would need unsafe code. If `work`
        // panics, the task ends, and the next scope of this thread overwrites the state.
        CURRENT_STATE.set(self.state);
        let result = work();
        self.state = CURRENT_STATE.replace(DeliveryState::default());
        if mem::take(&mut self.state.has_watch_changed) {
            self.generation = WATCHED_GENERATION.take();
            // The old future waits for the abort of the previous generation.
            self.abort = None;
        }
        result
    }

    /// Returns whether the client has to read bytes before anything else can be sent.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.state.wait == Wait::Client
    }

    /// Returns whether [`poll_abort`](Self::poll_abort) has to be called, because a wait has begun or the watched
    /// generation has changed.
    #[must_use]
    pub fn needs_poll(&self) -> bool {
        self.state.needs_poll
    }

    /// Ready with the reason when the delivery has to be aborted. Otherwise the waker of `context` is woken when the
    /// delivery has to be polled again.
    pub fn poll_abort(&mut self, context: &mut Context<'_>) -> Poll<AbortReason> {
        let needs_poll = mem::take(&mut self.state.needs_poll);
        // The abort has no time limit, so it is polled even if the delivery does not wait.
        if let Some(generation) = &self.generation {
            let abort = self
                .abort
                .get_or_insert_with(|| Box::pin(generation.abort.clone().cancelled_owned()));
            if abort.as_mut().poll(context).is_ready() {
                return self.abort_with(AbortReason::Aborted);
            }
        }
        let (timeout, reason) = match self.state.wait {
            Wait::Nothing => return Poll::Pending,
            Wait::Client => (self.timeout, AbortReason::TooSlow),
            Wait::HalfClosed => (HALF_CLOSED_TIMEOUT, AbortReason::ClientGone),
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(time::sleep(timeout)));
        // The state was updated: the timer may still have the deadline of an earlier wait.
        if needs_poll {
            timer.as_mut().reset(Instant::now() + timeout);
        }
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => self.abort_with(reason),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Stores why the delivery is aborted, for [`on_response_end`].
    fn abort_with(&mut self, reason: AbortReason) -> Poll<AbortReason> {
        self.state.abort_reason = Some(reason);
        Poll::Ready(reason)
    }
}

impl DeliveryState {
    /// Begins a wait.
    fn begin_wait(&mut self, wait: Wait) {
        self.wait = wait;
        self.needs_poll = true;
    }
}

/// Updates the state of the delivery whose task this thread polls.
fn update(work: impl FnOnce(&mut DeliveryState)) {
    let mut state = CURRENT_STATE.get();
    work(&mut state);
    CURRENT_STATE.set(state);
}

/// Begins to wait for the client. The socket calls this when a write is blocked, because the client reads no bytes.
pub(super) fn on_write_blocked() {
    update(|state| state.begin_wait(Wait::Client));
}

/// Ends a wait. The socket calls this when bytes were written.
pub(super) fn on_bytes_written() {
    update(|state| state.wait = Wait::Nothing);
}

/// Begins to wait for the app. The socket calls this when the client has closed its sending side, and hyper has no
/// bytes to write.
pub(super) fn on_half_close() {
    update(|state| state.begin_wait(Wait::HalfClosed));
}

/// Begins the delivery of a response of `generation`. The body calls this when it is created. Returns whether hyper
/// has to get the body in pieces of at most [`MAX_PIECE_BYTES`].
///
/// `is_streamed` is false if all bytes of the body are in memory. Such a body over HTTP/1 is usually written by the
/// poll that creates the body, and the abort of the generation is not watched, because that costs an allocation.
pub(super) fn on_response_begin(generation: &Arc<Generation>, is_streamed: bool) -> bool {
    let state = CURRENT_STATE.get();
    // hyper may not poll a body for a long time in two cases: a body over HTTP/2 or a streamed body, while the client
    // reads no bytes; and a body in memory, while an earlier response still blocks the socket.
    if state.is_http2_stream || is_streamed || state.wait == Wait::Client {
        WATCHED_GENERATION.set(Some(Arc::clone(generation)));
        update(|state| {
            state.is_watching = true;
            state.has_watch_changed = true;
            state.needs_poll = true;
        });
    }
    state.is_http2_stream
}

/// Updates the wait after hyper has polled the body of a response. `has_bytes` says whether the body returned bytes.
///
/// Over HTTP/2 hyper polls a body only when the flow-control window of the stream has room. After a body returned
/// bytes, the delivery waits for the client until the next poll. After a body returned no bytes, the delivery waits
/// for the app, without a time limit.
pub(super) fn on_body_polled(has_bytes: bool) {
    if CURRENT_STATE.get().is_http2_stream {
        update(|state| {
            if has_bytes {
                state.begin_wait(Wait::Client);
            } else {
                state.wait = Wait::Nothing;
            }
        });
    }
}

/// Ends the delivery of a response. The body of an app's response calls this when it is dropped. Returns why the
/// delivery was aborted, or `None` if the delivery was not aborted: the body is complete, or the connection failed.
pub(super) fn on_response_end() -> Option<AbortReason> {
    let state = CURRENT_STATE.get();
    if state.is_watching {
        WATCHED_GENERATION.set(None);
        update(|state| {
            state.is_watching = false;
            state.has_watch_changed = true;
        });
    }
    state.abort_reason
}

thread_local! {
    /// The state of the delivery whose task this thread polls.
    static CURRENT_STATE: Cell<DeliveryState> = const { Cell::new(DeliveryState {
        is_http2_stream: false,
        wait: Wait::Nothing,
        needs_poll: false,
        is_watching: false,
        has_watch_changed: false,
        abort_reason: None,
    }) };
    /// The generation to watch from now on, or `None`. Valid while `has_watch_changed` is true.
    static WATCHED_GENERATION: RefCell<Option<Arc<Generation>>> = const { RefCell::new(None) };
}

/// The executor that hyper uses for HTTP/2. It runs each stream in a task of its own, with a [`Delivery`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Http2Executor {
    timeout: Duration,
}

impl Http2Executor {
    /// Creates an executor for streams whose client may read no bytes for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Http2Executor {
    fn execute(&self, stream: F) {
        tokio::spawn(Http2StreamTask {
            stream: Some(stream),
            delivery: Delivery::of_stream(self.timeout),
        });
    }
}

pin_project! {
    /// The task of one stream of HTTP/2. When the delivery is aborted, the task drops hyper's future, and h2 resets
    /// the stream.
    struct Http2StreamTask<F> {
        #[pin]
        stream: Option<F>,
        delivery: Delivery,
    }
}

impl<F: Future<Output = ()>> Future for Http2StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        if this.delivery.scope(|| stream.poll(context)).is_ready() {
            return Poll::Ready(());
        }
        if this.delivery.poll_abort(context).is_pending() {
            return Poll::Pending;
        }
        // In a scope, because the body calls `on_response_end` for the reason when it is dropped.
        this.delivery.scope(|| this.stream.set(None));
        Poll::Ready(())
    }
}

/// The maximum number of bytes that a body returns to hyper at once over HTTP/2.
///
/// A poll for the next piece is the only sign that the client has read bytes. A piece must therefore not be larger
/// than a slow client can read within `--body-timeout`. The size is the default maximum size of a frame (RFC 9113,
/// section 6.5.2). Smaller pieces would need more frames.
pub(super) const MAX_PIECE_BYTES: usize = 16 << 10;

/// How long an app may provide no bytes for a client that has closed its sending side.
///
/// A FIN is the only sign of most clients that leave. Some clients that still wait for a response also send a FIN,
/// because they have no more requests (`nc -N`, health checks). These get their response if the app provides bytes
/// within this time. A client that has left occupies the app no longer than this time.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(2);
