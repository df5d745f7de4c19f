//! What the delivery of a response waits for, beside the app: for the client to take bytes, within a
//! time limit, and for the abort of the app's generation.
//!
//! hyper does not poll a response's body while the client takes nothing: over HTTP/1 its write buffer
//! is full, over HTTP/2 the stream has no flow-control window. A body therefore cannot notice by
//! itself that its time is over. Whatever polls the response does that in its place, with a
//! [`Delivery`]: over HTTP/1 the task of the connection, which has one response at a time; over HTTP/2
//! the task of the stream (`Streams`). Both lend their `Delivery` to the thread while they poll, so
//! that the response's body and the socket can tell what they are waiting for.

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

use crate::{log::access::Outcome, worker::generation::Generation};

/// What the delivery of the response that a task sends waits for.
#[derive(Debug)]
pub struct Delivery {
    /// How long the client may take nothing.
    timeout: Duration,
    state: State,
    /// The generation whose response is being sent, if its abort has to be watched.
    generation: Option<Arc<Generation>>,
    /// Made when the first wait begins, and kept: most deliveries never wait.
    timer: Option<Pin<Box<Sleep>>>,
    abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What the socket and the body of a response tell of a delivery. It is small, because each poll lends
/// it to the thread and takes it back.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Whether this is a stream of HTTP/2, where the window of one stream counts, not the socket.
    is_stream: bool,
    wait: Wait,
    /// Whether there is something to wait for since the last [`Delivery::poll_over`].
    is_new: bool,
    /// Whether there is a response whose generation's abort is watched.
    is_begun: bool,
    /// Whether that changed while the thread had the state: [`BEGUN`] is the generation, or none.
    has_changed: bool,
    over: Option<Over>,
}

/// What a delivery waits for, as far as the client is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    /// Nothing: there is nothing to send, or the client takes all of it.
    #[default]
    Nothing,
    /// The client has to take some bytes.
    Client,
    /// The app has to give some bytes to a client that has closed its sending side, which may mean that
    /// the client has left.
    HalfClosed,
}

/// Why a delivery is over before all of the response has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The generation's time to drain is over.
    Aborted,
    /// The client had closed its sending side, and the app gave nothing for `HALF_CLOSED`.
    ClientGone,
    /// The client took nothing for `--body-timeout`.
    TooSlow,
}

impl Over {
    /// The outcome of the request, as the access log names it.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Aborted => Outcome::CutOff,
            Self::ClientGone => Outcome::ClientGone,
            Self::TooSlow => Outcome::TimedOut,
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "the app's time to drain is over",
            Self::ClientGone => "its client has closed its side, and the app has nothing to send",
            Self::TooSlow => "its client took nothing of a response for --body-timeout",
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Delivery {
    /// A delivery over the whole of a connection, whose client may take nothing for `timeout`.
    #[must_use]
    pub fn of_connection(timeout: Duration) -> Self {
        Self {
            timeout,
            state: State::default(),
            generation: None,
            timer: None,
            abort: None,
        }
    }

    /// A delivery over one stream of HTTP/2.
    fn of_stream(timeout: Duration) -> Self {
        let mut delivery = Self::of_connection(timeout);
        delivery.state.is_stream = true;
        delivery
    }

    /// Runs `work`, and meanwhile lends the state to the thread.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        CURRENT.set(self.state);
        let result = work();
        self.state = CURRENT.replace(State::default());
        if mem::take(&mut self.state.has_changed) {
            self.generation = BEGUN.take();
            self.abort = None;
        }
        result
    }

    /// Whether the client has to take bytes before anything else can be sent.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.state.wait == Wait::Client
    }

    /// Whether [`poll_over`](Self::poll_over) has something new to wait for.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state.is_new
    }

    /// Ready when the delivery is over before its end. Else the task is woken when that may be so.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        let is_new = mem::take(&mut self.state.is_new);
        if let Some(generation) = &self.generation {
            let abort = self
                .abort
                .get_or_insert_with(|| Box::pin(generation.cut.clone().cancelled_owned()));
            if abort.as_mut().poll(context).is_ready() {
                return self.over(Over::Aborted);
            }
        }
        let (timeout, over) = match self.state.wait {
            Wait::Nothing => return Poll::Pending,
            Wait::Client => (self.timeout, Over::TooSlow),
            Wait::HalfClosed => (HALF_CLOSED, Over::ClientGone),
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(time::sleep(timeout)));
        if is_new {
            timer.as_mut().reset(Instant::now() + timeout);
        }
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => self.over(over),
            Poll::Pending => Poll::Pending,
        }
    }

    fn over(&mut self, over: Over) -> Poll<Over> {
        self.state.over = Some(over);
        Poll::Ready(over)
    }
}

impl State {
    fn wait(&mut self, wait: Wait) {
        self.wait = wait;
        self.is_new = true;
    }
}

/// Changes the state of the delivery whose task this thread polls.
fn change(work: impl FnOnce(&mut State)) {
    let mut state = CURRENT.get();
    work(&mut state);
    CURRENT.set(state);
}

/// The socket takes nothing more, because the client does not.
pub(super) fn blocked() {
    change(|state| state.wait(Wait::Client));
}

/// The socket took some bytes.
pub(super) fn sent() {
    change(|state| state.wait = Wait::Nothing);
}

/// The client has closed its sending side, and there is nothing to send.
pub(super) fn half_closed() {
    change(|state| state.wait(Wait::HalfClosed));
}

/// A response of `generation` begins. Its abort is watched when hyper may leave the body unpolled:
/// `has_to_wait` says that the body is not all there. True when the body has to be given in pieces of
/// at most [`PIECE`] bytes.
pub(super) fn begin(generation: &Arc<Generation>, has_to_wait: bool) -> bool {
    let state = CURRENT.get();
    if state.is_stream || has_to_wait || state.wait == Wait::Client {
        BEGUN.set(Some(Arc::clone(generation)));
        change(|state| {
            state.is_begun = true;
            state.has_changed = true;
            state.is_new = true;
        });
    }
    state.is_stream
}

/// hyper polled a response's body: it gave bytes, which the client of a stream now has to take; or it
/// did not, and then the client is not what the stream waits for.
pub(super) fn polled(has_bytes: bool) {
    if CURRENT.get().is_stream {
        change(|state| {
            if has_bytes {
                state.wait(Wait::Client);
            } else {
                state.wait = Wait::Nothing;
            }
        });
    }
}

/// The body of an app's response is dropped. Why that is so before its end, unless the client has left.
pub(super) fn end() -> Option<Over> {
    let state = CURRENT.get();
    if state.is_begun {
        BEGUN.set(None);
        change(|state| {
            state.is_begun = false;
            state.has_changed = true;
        });
    }
    state.over
}

thread_local! {
    /// The state of the delivery whose task the thread polls.
    static CURRENT: Cell<State> = const { Cell::new(State {
        is_stream: false,
        wait: Wait::Nothing,
        is_new: false,
        is_begun: false,
        has_changed: false,
        over: None,
    }) };
    /// The generation whose response began, while the thread polls the task that sends it.
    static BEGUN: RefCell<Option<Arc<Generation>>> = const { RefCell::new(None) };
}

/// Runs each stream of HTTP/2 on a task of its own, with a [`Delivery`]: hyper asks its executor to do
/// that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    timeout: Duration,
}

impl Streams {
    /// Streams whose client may take nothing for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(Stream {
            stream: Some(stream),
            delivery: Delivery::of_stream(self.timeout),
        });
    }
}

pin_project! {
    /// A stream of HTTP/2, which is dropped, and thereby reset, when its delivery is over.
    struct Stream<F> {
        #[pin]
        stream: Option<F>,
        delivery: Delivery,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        if this.delivery.scope(|| stream.poll(context)).is_ready() {
            return Poll::Ready(());
        }
        if this.delivery.poll_over(context).is_pending() {
            return Poll::Pending;
        }
        // The body asks the delivery why it is dropped.
        this.delivery.scope(|| this.stream.set(None));
        Poll::Ready(())
    }
}

/// How many bytes of a body an HTTP/2 stream is given at once. A stream tells that its client took bytes
/// when it asks for the next piece, so a piece must not be more than a slow client takes within
/// `--body-timeout`. It is the size of a frame as well (RFC 9113, section 6.5.2), so nothing is sent
/// in smaller parts than before.
pub(super) const PIECE: usize = 16 << 10;

/// How long an app may give nothing for a client that has closed its sending side. A FIN is all that is
/// seen of most clients that leave, and also what some send that only have no more requests (`nc -N`,
/// health checks). The latter get their response if it comes within this time; the former occupy an
/// app for no longer.
const HALF_CLOSED: Duration = Duration::from_secs(2);
