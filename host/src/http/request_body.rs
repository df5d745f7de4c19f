//! The bodies of requests on their way to an app, with a limit on their size and on the time that their
//! clients may send nothing.

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

/// The body of a request, which breaks off when it is larger than it may be, or its client sends
/// nothing for too long.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// None where there is nothing to come. Apart, as few requests have more than a head.
    guard: Option<Box<Guard>>,
}

/// Sees to it that a body keeps its limits.
#[derive(Debug)]
struct Guard {
    state: BodyLimitState,
    /// How many bytes may still come.
    left: u64,
    /// Made when it first has to wait; whoever polls it may have no timers.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs: nothing came when the body was last polled.
    is_late: bool,
    /// The connection of HTTP/1, which has to know how the body ends; none once it does.
    connection: Option<Arc<Activity>>,
}

/// The limits of a body that comes, and whether it kept them. A clone is of the same body.
#[derive(Clone, Debug)]
pub struct BodyLimitState(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    /// How long the client may send nothing.
    timeout: Duration,
    /// Where there are timers.
    runtime: Handle,
    /// [`COMING`], [`TOO_LARGE`], [`TOO_SLOW`] or [`ANSWERED`].
    state: AtomicU8,
}

/// It kept its limits so far.
const COMING: u8 = 0;
/// There were more bytes than there may be.
const TOO_LARGE: u8 = 1;
/// Its client sent nothing for too long.
const TOO_SLOW: u8 = 2;
/// The app answers already: how long it waits for the rest is its own matter.
const ANSWERED: u8 = 3;

impl RequestBody {
    /// A body of at most `limit` bytes on the connection `activity`, whose client may send nothing for
    /// `timeout`.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, when there is something to come.
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
        let guard = is_coming.then(|| {
            let limits = Limits {
                timeout,
                runtime: Handle::current(),
                state: AtomicU8::new(COMING),
            };
            Box::new(Guard {
                state: BodyLimitState(Arc::new(limits)),
                left: limit,
                timer: None,
                is_late: false,
                connection: activity.is_http1().then(|| Arc::clone(activity)),
            })
        });
        Self { incoming, guard }
    }

    /// What will tell whether it kept its limits; none where there is nothing to come.
    #[must_use]
    pub fn limit_state(&self) -> Option<BodyLimitState> {
        self.guard.as_ref().map(|guard| guard.state.clone())
    }
}

impl Guard {
    /// So many bytes came.
    fn take(&mut self, len: usize) -> Result<(), BoxError> {
        self.is_late = false;
        match self.left.checked_sub(len as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.state.0.breaks(TOO_LARGE);
                Err("the request's body is larger than this server takes".into())
            }
        }
    }

    /// No bytes came: an error when that is so for too long.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<BoxError> {
        let BodyLimitState(limits) = &self.state;
        let timer = self.timer.get_or_insert_with(|| {
            let _entered = limits.runtime.enter();
            Box::pin(time::sleep(limits.timeout))
        });
        if !self.is_late {
            self.is_late = true;
            timer.as_mut().reset(Instant::now() + limits.timeout);
        }
        ready!(timer.as_mut().poll(context));
        if !limits.breaks(TOO_SLOW) {
            return Poll::Pending;
        }
        Poll::Ready("the client sent nothing of the request's body for --body-timeout".into())
    }
}

impl Guard {
    /// The body is at its end, or `frame` is the last of it.
    fn ended(&mut self, frame: Option<&Frame<Bytes>>) {
        if let Some(activity) = self.connection.take() {
            let data = frame.and_then(Frame::data_ref);
            activity.body_ends(data.map(|data| data.as_ptr_range().end.addr()));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(activity) = &self.connection {
            activity.body_dropped();
        }
    }
}

impl BodyLimitState {
    /// The app answers. What it says counts, but for a body that did not keep its limits before.
    pub(super) fn answered(&self) -> Result<(), Refusal> {
        let Self(limits) = self;
        if limits.breaks(ANSWERED) {
            return Ok(());
        }
        match limits.state.load(Ordering::Relaxed) {
            TOO_LARGE => Err(Refusal::BodyTooLarge),
            TOO_SLOW => {
                info!(
                    timeout = ?limits.timeout,
                    "The client sent nothing of the request's body for --body-timeout, answering 408"
                );
                Err(Refusal::BodyTooSlow)
            }
            _ => Ok(()),
        }
    }
}

impl Limits {
    /// The first `state` that is not [`COMING`] stays. Whether it is this one.
    fn breaks(&self, state: u8) -> bool {
        self.state
            .compare_exchange(COMING, state, Ordering::Relaxed, Ordering::Relaxed)
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
        let Self { incoming, guard } = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(context)? else {
            return match guard {
                Some(guard) => guard.poll_late(context).map(|error| Some(Err(error))),
                None => Poll::Pending,
            };
        };
        if let Some(guard) = guard {
            let data = frame.as_ref().and_then(Frame::data_ref);
            if let Err(error) = guard.take(data.map_or(0, Bytes::len)) {
                return Poll::Ready(Some(Err(error)));
            }
            if data.is_none() || incoming.is_end_stream() {
                guard.ended(frame.as_ref());
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
