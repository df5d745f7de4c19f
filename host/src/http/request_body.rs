//! The bodies of requests, as apps read them. A body has a limit on its size, and on the time in which the client sends
//! nothing.

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

/// The body of a request. A poll returns an error if the body is larger than the limit, or if the client sent nothing
/// for too long.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// `None` if the request has no body. Boxed, because most requests have no body.
    limiter: Option<Box<Limiter>>,
}

/// Enforces the limits of one body.
#[derive(Debug)]
struct Limiter {
    state: BodyLimitState,
    /// The number of bytes that the client may still send.
    bytes_left: u64,
    /// Fires when the client has sent nothing for too long. Created when the body first has to wait for its client.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer is set for the current wait: no bytes were received since it was set.
    is_timer_running: bool,
    /// The activity of an HTTP/1 connection. The end of the body is reported to it. `None` after the report, and over
    /// HTTP/2.
    activity: Option<Arc<Activity>>,
}

/// Whether a body is within its limits. All clones share one state. The body sets the state, and the request reads the
/// state when the app has answered.
#[derive(Clone, Debug)]
pub struct BodyLimitState(Arc<LimitState>);

/// The shared part of [`BodyLimitState`].
#[derive(Debug)]
struct LimitState {
    /// How long the client may send nothing.
    timeout: Duration,
    /// The runtime of the server, for the timer. A body may be polled on threads of the app's runtime, which belong
    /// to another copy of tokio and cannot run timers of the server's copy.
    runtime: Handle,
    /// [`WITHIN_LIMITS`], or the first other value that was set.
    outcome: AtomicU8,
}

/// The body was within its limits so far, and the app has not answered.
const WITHIN_LIMITS: u8 = 0;
/// The body has more bytes than the limit.
const TOO_LARGE: u8 = 1;
/// The client sent nothing for too long.
const TOO_SLOW: u8 = 2;
/// The app has answered. From now on the body has no time limit, because the app decides how long to wait for it.
const ANSWERED: u8 = 3;

impl RequestBody {
    /// Creates the body of a request on the connection with `activity`. The body may have at most `limit` bytes, and
    /// the client may send nothing for `timeout`.
    ///
    /// # Panics
    ///
    /// When the request has a body and the function is called outside of a tokio runtime.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        limit: u64,
        timeout: Duration,
        activity: &Arc<Activity>,
    ) -> Self {
        let has_body = !incoming.is_end_stream();
        if activity.is_http1() {
            activity.on_body_begin(has_body);
        }
        let limiter = has_body.then(|| {
            let state = LimitState {
                timeout,
                runtime: Handle::current(),
                outcome: AtomicU8::new(WITHIN_LIMITS),
            };
            Box::new(Limiter {
                state: BodyLimitState(Arc::new(state)),
                bytes_left: limit,
                timer: None,
                is_timer_running: false,
                activity: activity.is_http1().then(|| Arc::clone(activity)),
            })
        });
        Self { incoming, limiter }
    }

    /// Returns the state of the limits, or `None` if the request has no body.
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
    /// When the body is larger than the limit.
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

    /// Polls the time limit. Ready with an error when the client has sent nothing for too long.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<BoxError> {
        let BodyLimitState(state) = &self.state;
        let timer = self.timer.get_or_insert_with(|| {
            // tokio binds a timer to the runtime that is entered when the timer is created.
            let _entered = state.runtime.enter();
            Box::pin(time::sleep(state.timeout))
        });
        if !self.is_timer_running {
            self.is_timer_running = true;
            timer.as_mut().reset(Instant::now() + state.timeout);
        }
        ready!(timer.as_mut().poll(context));
        if !state.set(TOO_SLOW) {
            // The app has answered, so the time limit does not apply any more.
            return Poll::Pending;
        }
        Poll::Ready("the client sent nothing of the request's body for --body-timeout".into())
    }

    /// Reports to the activity that the body is complete. `last` is the last frame, or `None` if the end was reported
    /// without a frame.
    fn complete(&mut self, last: Option<&Frame<Bytes>>) {
        if let Some(activity) = self.activity.take() {
            let data = last.and_then(Frame::data_ref);
            activity.on_body_end(data.map(|data| data.as_ptr_range().end.addr()));
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        // The end of the body was not reported, so the body was dropped before its end.
        if let Some(activity) = &self.activity {
            activity.on_body_drop();
        }
    }
}

impl BodyLimitState {
    /// Records that the app has answered. From now on the body has no time limit.
    ///
    /// # Errors
    ///
    /// When the body exceeded a limit before. The refusal replaces the response of the app.
    pub(super) fn app_answered(&self) -> Result<(), Refusal> {
        let Self(state) = self;
        if state.set(ANSWERED) {
            return Ok(());
        }
        match state.outcome.load(Ordering::Relaxed) {
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
    /// Sets the outcome, unless another outcome was set before. Returns whether `outcome` was set.
    fn set(&self, outcome: u8) -> bool {
        // Relaxed is enough, because no other data depends on the outcome.
        self.outcome
            .compare_exchange(WITHIN_LIMITS, outcome, Ordering::Relaxed, Ordering::Relaxed)
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
        // `?` returns an error of the connection. The limiter need not be informed, because hyper closes the connection
        // after such an error.
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
            // A body ends without a frame, with trailers, or with the last data frame.
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
