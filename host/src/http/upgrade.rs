//! Connections that apps take over, as for WebSockets.
//!
//! The app gets a stream together with the request. The stream opens when hyper has sent the response and
//! gives the connection up. It closes when the app drops it, or when the time to drain is over.

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

/// Returns the connection of a request that asks for an upgrade, for the app to take. None for all other
/// requests. The connection counts as busy while the app has it, and is closed when `abort` is cancelled.
pub fn take(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    // hyper puts upgrades into the extensions. Most requests have no extension at all.
    if head.extensions.is_empty() {
        return None;
    }
    open(head, in_flight, abort, activity)
}

/// Does the work of [`take`] for a request that has extensions.
#[cold]
fn open(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    let on_upgrade = head.extensions.remove::<OnUpgrade>()?;
    let protocol = head.extensions.remove::<Protocol>();
    let stream = UpgradeStream {
        state: StreamState::Waiting(on_upgrade, Arc::default()),
        abort: abort.clone(),
        abort_reader: None,
        abort_writer: None,
        _guard: activity.begin_upgrade(),
    };
    Some(Upgrade::new(
        in_flight,
        stream,
        protocol.as_ref().map(Protocol::as_str),
    ))
}

/// A connection that an app takes over.
#[derive(Debug)]
struct UpgradeStream {
    state: StreamState,
    abort: CancellationToken,
    /// Ready when `abort` is cancelled. Made when the connection is first not ready to be read.
    abort_reader: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Likewise, made when the connection is first not ready to be written to.
    abort_writer: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _guard: UpgradeGuard,
}

#[derive(Debug)]
enum StreamState {
    /// hyper still has the connection, because the response is being sent.
    Waiting(OnUpgrade, Arc<SideWakers>),
    Open(TokioIo<Upgraded>),
}

impl UpgradeStream {
    /// Ready with the connection once it is open.
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        side: Side,
    ) -> Poll<io::Result<Pin<&mut TokioIo<Upgraded>>>> {
        if let StreamState::Waiting(on_upgrade, wakers) = &mut self.state {
            wakers.set(side, context.waker());
            let waker = Waker::from(Arc::clone(wakers));
            let opened = Pin::new(on_upgrade).poll(&mut Context::from_waker(&waker));
            let upgraded = ready!(opened).map_err(io::Error::other)?;
            self.state = StreamState::Open(TokioIo::new(upgraded));
        }
        match &mut self.state {
            StreamState::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            StreamState::Waiting(..) => Poll::Pending,
        }
    }

    /// Runs `operation` on the connection once it is open.
    ///
    /// # Errors
    ///
    /// When `operation` fails, or `abort` is cancelled.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        side: Side,
        operation: impl FnOnce(Pin<&mut TokioIo<Upgraded>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = match self.poll_open(context, side) {
            Poll::Ready(Ok(stream)) => operation(stream, context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        // The check of the token is cheap. The future of the token is polled only when the task has to be
        // woken by it, or the abort has come.
        if !polled.is_pending() && !self.abort.is_cancelled() {
            return polled;
        }
        let abort = match side {
            Side::Reader => &mut self.abort_reader,
            Side::Writer => &mut self.abort_writer,
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
        self.poll(context, Side::Reader, |stream, context| {
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
        self.poll(context, Side::Writer, |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, Side::Writer, |stream, context| {
            stream.poll_flush(context)
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, Side::Writer, |stream, context| {
            stream.poll_shutdown(context)
        })
    }
}

/// A direction of a connection. An app may read in one task and write in another.
#[derive(Clone, Copy, Debug)]
enum Side {
    Reader,
    Writer,
}

/// A waker that wakes both the task that reads and the task that writes, because [`OnUpgrade`] stores only
/// one waker.
#[derive(Debug, Default)]
struct SideWakers(Mutex<[Option<Waker>; 2]>);

impl SideWakers {
    fn set(&self, side: Side, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers[side as usize] = Some(waker.clone());
    }
}

impl Wake for SideWakers {
    fn wake(self: Arc<Self>) {
        // The lock is released before the wakers run, because a waker may poll the stream at once.
        let wakers = {
            let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
