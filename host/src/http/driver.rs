//! Polls a connection to its end, within its time limits and until the server stops.
//!
//! One future has three sources of progress: hyper's connection, the timer of the connection, and the
//! shutdown signals of the server. hyper's connection is polled at every wake-up. Timer and signals have
//! the [`Activity`] as their waker and are polled only after one of them fired, because a request must not
//! pay for them.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::time::{self, Instant, Sleep};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::task_tracker::TaskTrackerToken,
};

use super::{
    activity::{Activity, TimeoutCheck, Timeouts},
    delivery::Delivery,
};

/// How a connection ended.
pub(super) enum ConnectionEnd {
    /// hyper has finished with the connection.
    Served(hyper::Result<()>),
    /// The head of a request did not come in time. The client has no answer yet.
    SlowHead,
    /// The connection has to be closed at once, for this reason.
    Aborted(&'static str),
}

/// The signals by which a server ends its connections.
#[derive(Clone, Copy)]
pub(super) struct Signals<'a> {
    /// Cancelled when connections are to end as soon as what is in flight has been answered.
    pub(super) stop: &'a CancellationToken,
    /// Cancelled when connections are to end at once.
    pub(super) abort: &'a CancellationToken,
}

/// Polls `connection` until it ends. A connection that is idle for too long, and every connection when
/// the server stops, is shut down in good order by `shut_down`.
///
/// `reader` counts the connection as one that may still read a request. It is dropped when that is over: over
/// HTTP/1 when the connection is told to stop, and over HTTP/2 when the connection has ended, because a client
/// may send requests until it has read the frame that tells it to stop.
pub(super) async fn drive<C>(
    connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &Arc<Activity>,
    delivery: &mut Delivery,
    reader: TaskTrackerToken,
    timeouts: Timeouts,
    signals: Signals<'_>,
) -> ConnectionEnd
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut driver = Driver {
        connection,
        shut_down,
        activity,
        delivery,
        reader: Some(reader),
        timeouts,
        timer: pin!(time::sleep(timeouts.idle)),
        stop: pin!(signals.stop.cancelled()),
        abort: pin!(signals.abort.cancelled()),
        is_stopping: false,
        is_closing_idle: false,
        waker: Waker::from(Arc::clone(activity)),
        task: Waker::noop().clone(),
    };
    poll_fn(move |context| driver.poll(context)).await
}

/// The reason for an abort when the server has waited long enough for its connections.
pub(super) const ABORTED: &str = "the server stops";

/// The state of [`drive`].
struct Driver<'a, 's, C, F> {
    connection: Pin<&'a mut C>,
    shut_down: F,
    activity: &'a Activity,
    delivery: &'a mut Delivery,
    /// None once the connection reads no more requests.
    reader: Option<TaskTrackerToken>,
    timeouts: Timeouts,
    timer: Pin<&'a mut Sleep>,
    stop: Pin<&'a mut WaitForCancellationFuture<'s>>,
    abort: Pin<&'a mut WaitForCancellationFuture<'s>>,
    /// Whether the connection was shut down because the server stops.
    is_stopping: bool,
    /// Whether the connection was shut down because it was idle.
    is_closing_idle: bool,
    /// The activity as a waker, for timer and signals.
    waker: Waker,
    /// The waker of this task, which the activity wakes.
    task: Waker,
}

impl<C, F> Driver<'_, '_, C, F>
where
    C: Future<Output = hyper::Result<()>>,
    F: Fn(Pin<&mut C>),
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let connection = &mut self.connection;
        let polled = self.delivery.scope(|| connection.as_mut().poll(context));
        if let Poll::Ready(served) = polled {
            return Poll::Ready(ConnectionEnd::Served(served));
        }
        if !self.task.will_wake(context.waker()) {
            self.task.clone_from(context.waker());
            self.activity.register_task(&self.task);
        }
        // hyper has used all bytes that it has. If no request came of them, they are a part of a head,
        // whose time begins now.
        let deadline = self.activity.head_deadline(self.timeouts);
        let deadline = deadline.filter(|deadline| *deadline < self.timer.deadline());
        if let Some(deadline) = deadline {
            self.timer.as_mut().reset(deadline);
        }
        // A timer that was reset, and a delivery that waits for something else, must be polled once, to
        // register the waker.
        if !self.activity.take_woken() && deadline.is_none() && !self.delivery.is_new() {
            return Poll::Pending;
        }
        let waker = self.waker.clone();
        self.poll_limits(&mut Context::from_waker(&waker))
    }

    /// Polls all that may end the connection, with the activity as the waker.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        // First the response that is being sent, because its reason is more exact than an idle connection.
        if let Poll::Ready(reason) = self.delivery.poll_abort(context) {
            return Poll::Ready(ConnectionEnd::Aborted(reason.as_str()));
        }
        // A loop, because a timer that was reset has to be polled again to register the waker.
        while self.timer.as_mut().poll(context).is_ready() {
            if let Some(end) = self.timer_fired() {
                return Poll::Ready(end);
            }
        }
        if self.abort.as_mut().poll(context).is_ready() {
            return Poll::Ready(ConnectionEnd::Aborted(ABORTED));
        }
        if !self.is_stopping && self.stop.as_mut().poll(context).is_ready() {
            self.is_stopping = true;
            self.shut_down();
            if self.activity.is_http1() {
                self.reader = None;
            }
        }
        Poll::Pending
    }

    /// Acts on the time limit that is reached, and sets the timer again unless the connection ends.
    fn timer_fired(&mut self) -> Option<ConnectionEnd> {
        let next = match self.activity.check_timeouts(self.timeouts) {
            TimeoutCheck::Later(deadline) => deadline,
            // The last response is still being sent, and its delivery has a time limit of its own.
            _ if self.delivery.waits_for_client() => Instant::now() + self.timeouts.idle,
            TimeoutCheck::SlowHead => return Some(ConnectionEnd::SlowHead),
            TimeoutCheck::Idle if self.is_closing_idle => {
                return Some(ConnectionEnd::Aborted(
                    "it was idle, and did not go when asked",
                ));
            }
            TimeoutCheck::Idle => {
                self.is_closing_idle = true;
                self.shut_down();
                Instant::now() + self.timeouts.idle
            }
        };
        self.timer.as_mut().reset(next);
        None
    }

    /// Asks hyper to end the connection when what is in flight has been answered.
    fn shut_down(&mut self) {
        self.activity.shutdown_begins();
        (self.shut_down)(self.connection.as_mut());
        // hyper acts on the request at its next poll.
        self.task.wake_by_ref();
    }
}
