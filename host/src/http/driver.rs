//! Polls a connection to its end, within its time limits and until the server stops.
//!
//! The future of a connection polls hyper's connection, the timer of the connection, the delivery of the current
//! response, and the shutdown signals of the server. hyper's connection is polled at every wake-up. The others have
//! the [`Activity`] as their waker and are polled only after one of them fired, because most wake-ups come from
//! the socket, and a request must not pay for four polls.

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
    /// The head of a request was not complete in time. The client has got no response to that request.
    SlowHead,
    /// The connection has to be closed at once, for the reason in the field.
    Aborted(&'static str),
}

/// The signals with which a server ends its connections.
#[derive(Clone, Copy)]
pub(super) struct ShutdownSignals<'a> {
    /// Cancelled when connections have to end as soon as the requests in flight are answered.
    pub(super) stop: &'a CancellationToken,
    /// Cancelled when connections have to end at once.
    pub(super) abort: &'a CancellationToken,
}

/// Polls `connection` until the connection ends, and returns how it ended.
///
/// `shut_down` starts hyper's graceful shutdown. It is called when the connection was idle for too long, and when
/// the server stops.
///
/// `reader_token` counts the connection as one that may still read a request. Over HTTP/1 the token is dropped when
/// the graceful shutdown starts because the server stops. Over HTTP/2 the token is dropped when the connection has
/// ended, because the client may send requests until it has read the GOAWAY frame.
pub(super) async fn drive<C>(
    connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &Arc<Activity>,
    delivery: &mut Delivery,
    reader_token: TaskTrackerToken,
    timeouts: Timeouts,
    signals: ShutdownSignals<'_>,
) -> ConnectionEnd
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut driver = Driver {
        connection,
        shut_down,
        activity,
        delivery,
        reader_token: Some(reader_token),
        timeouts,
        timer: pin!(time::sleep(timeouts.idle)),
        stop: pin!(signals.stop.cancelled()),
        abort: pin!(signals.abort.cancelled()),
        is_stopping: false,
        is_closing_idle: false,
        activity_waker: Waker::from(Arc::clone(activity)),
        task_waker: Waker::noop().clone(),
    };
    poll_fn(move |context| driver.poll(context)).await
}

/// The reason of an abort by [`ShutdownSignals::abort`].
pub(super) const SERVER_ABORTS: &str = "the server stops";

/// The state of the future that [`drive`] polls.
struct Driver<'a, 's, C, F> {
    connection: Pin<&'a mut C>,
    shut_down: F,
    activity: &'a Activity,
    delivery: &'a mut Delivery,
    /// `None` once the connection reads no more requests.
    reader_token: Option<TaskTrackerToken>,
    timeouts: Timeouts,
    /// Fires when the time limits of the connection have to be checked.
    timer: Pin<&'a mut Sleep>,
    /// Ready when [`ShutdownSignals::stop`] is cancelled.
    stop: Pin<&'a mut WaitForCancellationFuture<'s>>,
    /// Ready when [`ShutdownSignals::abort`] is cancelled.
    abort: Pin<&'a mut WaitForCancellationFuture<'s>>,
    /// Whether the graceful shutdown was started because the server stops.
    is_stopping: bool,
    /// Whether the graceful shutdown was started because the connection was idle.
    is_closing_idle: bool,
    /// The activity as a waker, for the timer, the delivery and the signals.
    activity_waker: Waker,
    /// The waker of the connection's task. The activity wakes the task with it.
    task_waker: Waker,
}

impl<C, F> Driver<'_, '_, C, F>
where
    C: Future<Output = hyper::Result<()>>,
    F: Fn(Pin<&mut C>),
{
    /// Polls hyper's connection, and the limits if one of their wakers fired.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        // In a scope, because the socket and the response bodies report to the delivery.
        let connection = &mut self.connection;
        let polled = self.delivery.scope(|| connection.as_mut().poll(context));
        if let Poll::Ready(served) = polled {
            return Poll::Ready(ConnectionEnd::Served(served));
        }
        if !self.task_waker.will_wake(context.waker()) {
            self.task_waker.clone_from(context.waker());
            self.activity.register_task(&self.task_waker);
        }
        // After hyper was polled: hyper has parsed all bytes that it received. If these did not complete a head, the
        // time limit of the head begins now.
        let deadline = self.activity.head_deadline(self.timeouts);
        // A timer that fires earlier is left as it is: it checks the limits again and is reset then.
        let deadline = deadline.filter(|deadline| *deadline < self.timer.deadline());
        if let Some(deadline) = deadline {
            self.timer.as_mut().reset(deadline);
        }
        // A timer that was reset, and a delivery with a new wait, have to be polled once to register the waker.
        if !self.activity.take_woken() && deadline.is_none() && !self.delivery.needs_poll() {
            return Poll::Pending;
        }
        let waker = self.activity_waker.clone();
        self.poll_limits(&mut Context::from_waker(&waker))
    }

    /// Polls the delivery, the timer and the signals. `context` has the activity as its waker.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        // The delivery first, because the reason of an aborted response is more exact than a time limit of the
        // connection.
        if let Poll::Ready(reason) = self.delivery.poll_abort(context) {
            return Poll::Ready(ConnectionEnd::Aborted(reason.as_str()));
        }
        // A loop, because a timer that was reset has to be polled again to register its waker.
        while self.timer.as_mut().poll(context).is_ready() {
            if let Some(end) = self.on_timer() {
                return Poll::Ready(end);
            }
        }
        if self.abort.as_mut().poll(context).is_ready() {
            return Poll::Ready(ConnectionEnd::Aborted(SERVER_ABORTS));
        }
        if !self.is_stopping && self.stop.as_mut().poll(context).is_ready() {
            self.is_stopping = true;
            self.start_shutdown();
            // The graceful shutdown of HTTP/1 disables keep-alive: hyper reads no request after the current one. A
            // request of which only a part of the head has come still counts as read, because waiting for a slow
            // client would delay every other client of an app that moves. It gets a 503 if its app has moved.
            if self.activity.is_http1() {
                self.reader_token = None;
            }
        }
        Poll::Pending
    }

    /// Handles the time limit that is reached. Returns how the connection ends, or `None` after the timer was set
    /// again.
    fn on_timer(&mut self) -> Option<ConnectionEnd> {
        let next = match self.activity.check_timeouts(self.timeouts) {
            TimeoutCheck::CheckAgainAt(deadline) => deadline,
            // No request is in flight, but hyper still has bytes of the last response to write. The delivery has a
            // time limit for that.
            _ if self.delivery.waits_for_client() => Instant::now() + self.timeouts.idle,
            TimeoutCheck::SlowHead => return Some(ConnectionEnd::SlowHead),
            // The graceful shutdown did not end the connection within a second idle time.
            TimeoutCheck::Idle if self.is_closing_idle => {
                return Some(ConnectionEnd::Aborted(
                    "it was idle, and did not go when asked",
                ));
            }
            TimeoutCheck::Idle => {
                self.is_closing_idle = true;
                self.start_shutdown();
                Instant::now() + self.timeouts.idle
            }
        };
        self.timer.as_mut().reset(next);
        None
    }

    /// Starts hyper's graceful shutdown: the connection ends once the requests in flight are answered.
    fn start_shutdown(&mut self) {
        self.activity.on_shutdown();
        (self.shut_down)(self.connection.as_mut());
        // hyper acts on the shutdown at its next poll. No other event is certain to cause that poll.
        self.task_waker.wake_by_ref();
    }
}
