//! The sending of a response, and the two things besides the app that it waits for: a client that takes no
//! bytes, within a time limit, and the abort of the app's generation.
//!
//! hyper does not poll the body of a response while the client takes nothing: over HTTP/1 hyper's write
//! buffer is full, over HTTP/2 the stream has no flow-control window. A body therefore cannot notice by
//! itself that its time is over. The task that polls the response notices it, with a [`Delivery`]. Over
//! HTTP/1 that is the task of the connection, which has one response at a time. Over HTTP/2 every stream
//! has a task of its own (`StreamExecutor`).
//!
//! The task calls hyper, and hyper calls the socket and the body. hyper has no way to pass a `Delivery`
//! down to them, so that the task puts the small part of it, a `DeliveryState`, into a thread-local
//! while it polls ([`Delivery::scope`]). Socket and body change that state by the functions of this
//! module, such as `blocked` and `begin`.

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

use crate::{log::access::RequestOutcome, worker::generation::Generation};

/// The delivery of the response that a task is sending.
#[derive(Debug)]
pub struct Delivery {
    /// How long the client may take nothing.
    timeout: Duration,
    state: DeliveryState,
    /// The generation whose response is being sent, if its abort has to be watched.
    generation: Option<Arc<Generation>>,
    /// Made when the first wait begins and kept then. Most deliveries never wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// Ready when `generation` is aborted. Made at the first poll.
    abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// The part of a delivery that socket and body change. It is small, because every poll copies it into a thread-local
/// and back.
#[derive(Clone, Copy, Debug, Default)]
struct DeliveryState {
    /// Whether the response is sent on a stream of HTTP/2. A stream waits for its own flow-control
    /// window, not for the socket.
    is_stream: bool,
    wait: Wait,
    /// Whether the delivery waits for something new since the last [`Delivery::poll_abort`].
    is_new: bool,
    /// Whether a response is being sent whose generation is watched.
    is_begun: bool,
    /// Whether the watched generation has changed while the state was in the thread-local. The new one
    /// is in [`WATCHED`].
    has_changed: bool,
    /// Why the delivery was given up. None while it goes on.
    reason: Option<AbortReason>,
}

/// A wait of a delivery that has a time limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    /// Nothing: there is nothing to send, or the client takes all of it.
    #[default]
    Nothing,
    /// The client has to take some bytes.
    Client,
    /// The client has closed its sending side and may have left. The app has to give bytes, by which that
    /// is found out.
    HalfClosed,
}

/// Why a delivery is given up before the whole response has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The generation's time to drain is over.
    Aborted,
    /// The client had closed its sending side, and the app gave nothing for `HALF_CLOSED_TIMEOUT`.
    ClientGone,
    /// The client took nothing for `--body-timeout`.
    TooSlow,
}

impl AbortReason {
    /// Returns the outcome of the request, as the access log names it.
    #[must_use]
    pub fn outcome(self) -> RequestOutcome {
        match self {
            Self::Aborted => RequestOutcome::CutOff,
            Self::ClientGone => RequestOutcome::ClientGone,
            Self::TooSlow => RequestOutcome::TimedOut,
        }
    }

    /// Returns the reason in words.
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
    /// Returns the delivery of a whole connection, whose client may take nothing for `timeout`.
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

    /// Returns the delivery of one stream of HTTP/2.
    fn of_stream(timeout: Duration) -> Self {
        let mut delivery = Self::of_connection(timeout);
        delivery.state.is_stream = true;
        delivery
    }

    /// Runs `work` while socket and body can reach the state of this delivery.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        // A copy in and a copy out: the state is small, and a reference in a thread-local would need
        // unsafe code. If `work` panics, the task is over, and the next scope sets the state anew.
        CURRENT.set(self.state);
        let result = work();
        self.state = CURRENT.replace(DeliveryState::default());
        if mem::take(&mut self.state.has_changed) {
            self.generation = WATCHED.take();
            self.abort = None;
        }
        result
    }

    /// Whether the client has to take bytes before anything else can be sent.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.state.wait == Wait::Client
    }

    /// Whether [`poll_abort`](Self::poll_abort) has to be called, because the delivery waits for something
    /// new.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state.is_new
    }

    /// Ready when the delivery has to be given up. Otherwise the task is woken when that may be so.
    pub fn poll_abort(&mut self, context: &mut Context<'_>) -> Poll<AbortReason> {
        let is_new = mem::take(&mut self.state.is_new);
        if let Some(generation) = &self.generation {
            let abort = self
                .abort
                .get_or_insert_with(|| Box::pin(generation.abort.clone().cancelled_owned()));
            if abort.as_mut().poll(context).is_ready() {
                return self.give_up(AbortReason::Aborted);
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
        // The timer is left over from an earlier wait, unless this wait is an old one.
        if is_new {
            timer.as_mut().reset(Instant::now() + timeout);
        }
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => self.give_up(reason),
            Poll::Pending => Poll::Pending,
        }
    }

    fn give_up(&mut self, reason: AbortReason) -> Poll<AbortReason> {
        self.state.reason = Some(reason);
        Poll::Ready(reason)
    }
}

impl DeliveryState {
    fn wait_for(&mut self, wait: Wait) {
        self.wait = wait;
        self.is_new = true;
    }
}

/// Changes the state of the delivery whose task this thread polls.
fn change(work: impl FnOnce(&mut DeliveryState)) {
    let mut state = CURRENT.get();
    work(&mut state);
    CURRENT.set(state);
}

/// Called by the socket when it takes no more bytes, because the client takes none.
pub(super) fn blocked() {
    change(|state| state.wait_for(Wait::Client));
}

/// Called by the socket when it has taken some bytes.
pub(super) fn sent() {
    change(|state| state.wait = Wait::Nothing);
}

/// Called by the socket when the client has closed its sending side, and there is nothing to send.
pub(super) fn half_closed() {
    change(|state| state.wait_for(Wait::HalfClosed));
}

/// Called when the body of a response of `generation` is made. Returns whether the body has to be given
/// in pieces of at most [`PIECE`] bytes.
///
/// The abort of the generation is watched only when hyper may leave the body unpolled, because watching
/// costs an allocation. A whole body over HTTP/1 is usually written by the poll that made it.
/// `is_streamed` says that the body is not whole.
pub(super) fn begin(generation: &Arc<Generation>, is_streamed: bool) -> bool {
    let state = CURRENT.get();
    if state.is_stream || is_streamed || state.wait == Wait::Client {
        WATCHED.set(Some(Arc::clone(generation)));
        change(|state| {
            state.is_begun = true;
            state.has_changed = true;
            state.is_new = true;
        });
    }
    state.is_stream
}

/// Called when hyper has polled the body of a response. `has_bytes` says whether the body gave bytes.
///
/// Over HTTP/2 hyper polls a body only when the window of its stream has room. So a body that gave bytes
/// waits for its client from then on, and one that gave none waits for the app.
pub(super) fn polled(has_bytes: bool) {
    if CURRENT.get().is_stream {
        change(|state| {
            if has_bytes {
                state.wait_for(Wait::Client);
            } else {
                state.wait = Wait::Nothing;
            }
        });
    }
}

/// Called when the body of an app's response is dropped. Returns why the delivery was given up. None when
/// it was not: the body is complete, or the connection failed.
pub(super) fn end() -> Option<AbortReason> {
    let state = CURRENT.get();
    if state.is_begun {
        WATCHED.set(None);
        change(|state| {
            state.is_begun = false;
            state.has_changed = true;
        });
    }
    state.reason
}

thread_local! {
    /// The state of the delivery whose task the thread polls.
    static CURRENT: Cell<DeliveryState> = const { Cell::new(DeliveryState {
        is_stream: false,
        wait: Wait::Nothing,
        is_new: false,
        is_begun: false,
        has_changed: false,
        reason: None,
    }) };
    /// The generation to watch from now on. Read when `has_changed` is true.
    static WATCHED: RefCell<Option<Arc<Generation>>> = const { RefCell::new(None) };
}

/// Runs each stream of HTTP/2 on a task of its own, with a [`Delivery`]. hyper asks its executor to run
/// them.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamExecutor {
    timeout: Duration,
}

impl StreamExecutor {
    /// Returns an executor for streams whose client may take nothing for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        tokio::spawn(StreamTask {
            stream: Some(stream),
            delivery: Delivery::of_stream(self.timeout),
        });
    }
}

pin_project! {
    /// A stream of HTTP/2. When its delivery is given up, hyper's future is dropped, which resets the
    /// stream.
    struct StreamTask<F> {
        #[pin]
        stream: Option<F>,
        delivery: Delivery,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
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
        // In a scope, because the drop of the body asks the delivery for the reason.
        this.delivery.scope(|| this.stream.set(None));
        Poll::Ready(())
    }
}

/// How many bytes of a body an HTTP/2 stream is given at once.
///
/// A stream shows that its client took bytes when it asks for the next piece. So a piece must not be more
/// than a slow client takes within `--body-timeout`. The size is also that of a frame (RFC 9113, section
/// 6.5.2), so that smaller pieces would make more frames.
pub(super) const PIECE: usize = 16 << 10;

/// How long an app may give nothing for a client that has closed its sending side.
///
/// A FIN is all that shows of most clients that leave. Some clients also send a FIN when they only have no
/// more requests (`nc -N`, health checks). The latter get their response if it comes within this time. The
/// former occupy an app for no longer than this.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(2);
