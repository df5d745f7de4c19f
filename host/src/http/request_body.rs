//! The bodies of requests on their way to an app, with limits on their size and on the time in which
//! their clients send nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use plugin_api::BoxError;
use tokio::{
    runtime::Handle,
    time::{self, Instant, Sleep},
};
use tracing::info;

use super::{activity::Activity, refusal::Refusal};

/// The body of a request. It ends with an error when it is larger than allowed, or when its client sends
/// nothing for too long.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// None when the request has no body. Boxed, because most requests have none.
    limiter: Option<Box<Limiter>>,
}

/// Enforces the limits of one body.
#[derive(Debug)]
struct Limiter {
    state: BodyLimitState,
    /// How many more bytes may come.
    bytes_left: u64,
    /// Made when the body first has to wait for its client.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs: the last poll of the body gave nothing.
    is_timer_running: bool,
    /// The connection, which over HTTP/1 has to know how the body ends. None once it knows.
    connection: Option<Arc<Activity>>,
}

/// Whether a body keeps its limits. Clones share one state: the body sets it, and the request reads it when
/// the app has answered.
#[derive(Clone, Debug)]
pub struct BodyLimitState(Arc<LimitState>);

#[derive(Debug)]
struct LimitState {
    /// How long the client may send nothing.
    timeout: Duration,
    /// The runtime of the server. A body is polled on threads of the app's runtime, where the timers of
    /// this server's `tokio` do not work.
    runtime: Handle,
    /// [`WITHIN_LIMITS`] until the first other value is set, which then stays.
    state: AtomicU8,
}

/// The body has kept its limits so far.
const WITHIN_LIMITS: u8 = 0;
/// More bytes came than the body may have.
const TOO_LARGE: u8 = 1;
/// The client sent nothing for too long.
const TOO_SLOW: u8 = 2;
/// The app has answered. How long it waits for the rest of the body is the app's decision.
const ANSWERED: u8 = 3;

impl RequestBody {
    /// Returns the body of a request on the connection `activity`. It may have at most `limit` bytes, and
    /// its client may send nothing for `timeout`.
    ///
    /// # Panics
    ///
    /// When the request has a body and this is called outside of a runtime.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        limit: u64,
        timeout: Duration,
        activity: &Arc<Activity>,
    ) -> Self {
        let is_coming = !incoming.is_end_stream();
        if activity.is_http1() {
            activity.body_begins(is_coming);
        }
        let limiter = is_coming.then(|| {
            let state = LimitState {
                timeout,
                runtime: Handle::current(),
                state: AtomicU8::new(WITHIN_LIMITS),
            };
            Box::new(Limiter {
                state: BodyLimitState(Arc::new(state)),
                bytes_left: limit,
                timer: None,
                is_timer_running: false,
                connection: activity.is_http1().then(|| Arc::clone(activity)),
            })
        });
        Self { incoming, limiter }
    }

    /// Returns the state by which the request learns whether the body kept its limits. None when the
    /// request has no body.
    #[must_use]
    pub fn limit_state(&self) -> Option<BodyLimitState> {
        self.limiter.as_ref().map(|limiter| limiter.state.clone())
    }
}

impl Limiter {
    /// Counts received bytes.
    ///
    /// # Errors
    ///
    /// When the body is larger than it may be.
    fn count(&mut self, len: usize) -> Result<(), BoxError> {
        self.is_timer_running = false;
        match self.bytes_left.checked_sub(len as u64) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => {
                self.state.0.set(TOO_LARGE);
                Err("the request's body is larger than this server takes".into())
            }
        }
    }

    /// Waits while no bytes come. Ready with an error when the client has sent nothing for too long.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<BoxError> {
        let BodyLimitState(state) = &self.state;
        let timer = self.timer.get_or_insert_with(|| {
            // A timer belongs to the runtime that is entered when the timer is made.
            let _entered = state.runtime.enter();
            Box::pin(time::sleep(state.timeout))
        });
        if !self.is_timer_running {
            self.is_timer_running = true;
            timer.as_mut().reset(Instant::now() + state.timeout);
        }
        ready!(timer.as_mut().poll(context));
        if !state.set(TOO_SLOW) {
            // The app has answered, and may wait for the body as long as it wants.
            return Poll::Pending;
        }
        Poll::Ready("the client sent nothing of the request's body for --body-timeout".into())
    }

    /// Tells the connection that the body is complete. `last` is the last frame, or None when the end
    /// came by itself.
    fn complete(&mut self, last: Option<&Frame<Bytes>>) {
        if let Some(activity) = self.connection.take() {
            let data = last.and_then(Frame::data_ref);
            activity.body_ends(data.map(|data| data.as_ptr_range().end.addr()));
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        if let Some(activity) = &self.connection {
            activity.body_dropped();
        }
    }
}

impl BodyLimitState {
    /// Stores that the app has answered. From then on the body has no time limit.
    ///
    /// # Errors
    ///
    /// The answer for a body that broke a limit before. It replaces the answer of the app.
    pub(super) fn app_answered(&self) -> Result<(), Refusal> {
        let Self(state) = self;
        if state.set(ANSWERED) {
            return Ok(());
        }
        match state.state.load(Ordering::Relaxed) {
            TOO_LARGE => Err(Refusal::BodyTooLarge),
            TOO_SLOW => {
                info!(
                    timeout = ?state.timeout,
                    "The client sent nothing of the request's body for --body-timeout, answering 408"
                );
                Err(Refusal::BodyTooSlow)
            }
            _ => Ok(()),
        }
    }
}

impl LimitState {
    /// Sets the state, unless it was set before. Returns whether it was set now.
    fn set(&self, state: u8) -> bool {
        self.state
            .compare_exchange(WITHIN_LIMITS, state, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { incoming, limiter } = &mut *self;
        // An error of the connection ends the body. hyper then closes the connection, so that the limiter
        // need not know.
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(context)? else {
            return match limiter {
                Some(limiter) => limiter.poll_timeout(context).map(|error| Some(Err(error))),
                None => Poll::Pending,
            };
        };
        if let Some(limiter) = limiter {
            let data = frame.as_ref().and_then(Frame::data_ref);
            if let Err(error) = limiter.count(data.map_or(0, Bytes::len)) {
                return Poll::Ready(Some(Err(error)));
            }
            // The end came by itself, as trailers, or together with the last data.
            if data.is_none() || incoming.is_end_stream() {
                limiter.complete(frame.as_ref());
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
