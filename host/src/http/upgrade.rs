//! A client's connection on its way to an app that takes it over: opened when hyper lets go of it,
//! closed when the app drops it or its time to drain is over.

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

/// The connection of a request that asks for an upgrade, for the app to take. The connection counts
/// as busy while the app has it, and is cut off when `abort` is cancelled.
pub fn take(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    // Most requests have none.
    if head.extensions.is_empty() {
        return None;
    }
    open(head, in_flight, abort, activity)
}

#[cold]
fn open(
    head: &mut Parts,
    in_flight: &InFlight,
    abort: &CancellationToken,
    activity: &Arc<Activity>,
) -> Option<Upgrade> {
    let on_upgrade = head.extensions.remove::<OnUpgrade>()?;
    let protocol = head.extensions.remove::<Protocol>();
    let stream = Stream {
        state: State::Waiting(on_upgrade, Arc::default()),
        abort: abort.clone(),
        abort_reader: None,
        abort_writer: None,
        _taken_over: activity.taken_over(),
    };
    Some(Upgrade::new(
        in_flight,
        stream,
        protocol.as_ref().map(Protocol::as_str),
    ))
}

/// A client's connection.
#[derive(Debug)]
struct Stream {
    state: State,
    abort: CancellationToken,
    // Made when the connection is first not ready to be read, or to be written to.
    abort_reader: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    abort_writer: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _taken_over: UpgradeGuard,
}

#[derive(Debug)]
enum State {
    /// hyper still has the connection: the response is on its way.
    Waiting(OnUpgrade, Arc<Both>),
    Open(TokioIo<Upgraded>),
}

impl Stream {
    /// The connection, once it is open.
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        side: Side,
    ) -> Poll<io::Result<Pin<&mut TokioIo<Upgraded>>>> {
        if let State::Waiting(on_upgrade, both) = &mut self.state {
            both.keep(side, context.waker());
            let waker = Waker::from(Arc::clone(both));
            let opened = Pin::new(on_upgrade).poll(&mut Context::from_waker(&waker));
            let upgraded = ready!(opened).map_err(io::Error::other)?;
            self.state = State::Open(TokioIo::new(upgraded));
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Waiting(..) => Poll::Pending,
        }
    }

    /// What `operation` gives, or an error once the connection is cut off.
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

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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

#[derive(Clone, Copy, Debug)]
enum Side {
    Reader,
    Writer,
}

/// Wakes the task that reads and the one that writes: an upgrade knows only one waker.
#[derive(Debug, Default)]
struct Both(Mutex<[Option<Waker>; 2]>);

impl Both {
    fn keep(&self, side: Side, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers[side as usize] = Some(waker.clone());
    }
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        let wakers = {
            let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
