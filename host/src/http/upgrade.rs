//! Upgraded connections, such as WebSockets: an app takes the connection over.
//!
//! The app gets a stream together with the request. The stream opens after hyper has sent the response and released
//! the connection. The stream closes when the app drops it, and fails when the generation is aborted.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker, ready},
};

use http::request::Parts;
use hyper::{
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use plugin_api::host::{InFlight, Upgrade};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::activity::{Activity, UpgradeGuard};

/// Returns the stream for a request that offers an upgrade, or `None` for all other requests. The connection counts as
/// busy until the app drops the stream. The stream fails when `abort` is cancelled.
pub fn take_stream(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    // hyper stores an upgrade in the extensions, and most requests have no extension.
    if head.extensions.is_empty() {
        return None;
    }
    take_from_extensions(head, in_flight, abort, activity)
}

/// Does the work of [`take_stream`] for a request that has extensions.
#[cold]
fn take_from_extensions(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    let on_upgrade = head.extensions.remove::<OnUpgrade>()?;
    let protocol = head.extensions.remove::<Protocol>();
    let stream = UpgradeStream {
        state: StreamState::Opening(on_upgrade, Arc::default()),
        abort: abort.clone(),
        read_abort: None,
        write_abort: None,
        _guard: activity.begin_upgrade(),
    };
    Some(Upgrade::new(
        in_flight,
        stream,
        protocol.as_ref().map(Protocol::as_str),
    ))
}

/// The stream of a connection that an app takes over.
#[derive(Debug)]
struct UpgradeStream {
    state: StreamState,
    /// Cancelled when the generation is aborted.
    abort: CancellationToken,
    /// Ready when `abort` is cancelled, for the task that reads. Created when a read first has to wait.
    read_abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Ready when `abort` is cancelled, for the task that writes. Created when a write first has to wait. A future
    /// has only one waker, so each task needs its own.
    write_abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _guard: UpgradeGuard,
}

/// The state of an [`UpgradeStream`].
#[derive(Debug)]
enum StreamState {
    /// hyper still has the connection, because the response is not sent yet.
    Opening(OnUpgrade, Arc<DirectionWakers>),
    /// hyper has released the connection.
    Open(TokioIo<Upgraded>),
}

impl UpgradeStream {
    /// Ready with the connection once hyper has released it.
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<Pin<&mut TokioIo<Upgraded>>>> {
        if let StreamState::Opening(on_upgrade, wakers) = &mut self.state {
            // `OnUpgrade` stores only the last waker. The shared waker wakes both tasks.
            wakers.set(direction, context.waker());
            let waker = Waker::from(Arc::clone(wakers));
            let opened = Pin::new(on_upgrade).poll(&mut Context::from_waker(&waker));
            let upgraded = ready!(opened).map_err(io::Error::other)?;
            self.state = StreamState::Open(TokioIo::new(upgraded));
        }
        match &mut self.state {
            StreamState::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            StreamState::Opening(..) => Poll::Pending,
        }
    }

    /// Runs `operation` on the connection once the stream is open.
    ///
    /// # Errors
    ///
    /// When `operation` fails, or `abort` is cancelled.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        direction: Direction,
        operation: impl FnOnce(Pin<&mut TokioIo<Upgraded>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = match self.poll_open(context, direction) {
            Poll::Ready(Ok(stream)) => operation(stream, context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        // The check of the token is cheap. The future of the token is polled only if the task has to wait, and then
        // registers the waker, or if the token is cancelled.
        if !polled.is_pending() && !self.abort.is_cancelled() {
            return polled;
        }
        let abort = match direction {
            Direction::Read => &mut self.read_abort,
            Direction::Write => &mut self.write_abort,
        };
        let abort = abort.get_or_insert_with(|| Box::pin(self.abort.clone().cancelled_owned()));
        abort.as_mut().poll(context).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the app's time to drain is over",
            ))
        })
    }
}

impl AsyncRead for UpgradeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(context, Direction::Read, |stream, context| {
            stream.poll_read(context, buffer)
        })
    }
}

impl AsyncWrite for UpgradeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(context, Direction::Write, |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, Direction::Write, |stream, context| {
            stream.poll_flush(context)
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, Direction::Write, |stream, context| {
            stream.poll_shutdown(context)
        })
    }
}

/// A direction of a stream. An app may read in one task and write in another.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Read,
    Write,
}

/// A waker that wakes the task that reads and the task that writes. Needed because [`OnUpgrade`] stores only one waker.
#[derive(Debug, Default)]
struct DirectionWakers(Mutex<[Option<Waker>; 2]>);

impl DirectionWakers {
    /// Sets the waker of the task that uses `direction`.
    fn set(&self, direction: Direction, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers[direction as usize] = Some(waker.clone());
    }
}

impl Wake for DirectionWakers {
    fn wake(self: Arc<Self>) {
        // The lock is released before the wakers are called, because a waker may poll the stream at once, and the
        // poll takes the lock.
        let wakers = {
            let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
