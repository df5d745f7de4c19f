//! One connection: which protocol it speaks, its time limits, and its end.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{self, Instant},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::{debug, warn};

use super::{
    activity::{Activity, TimeoutCheck, Timeouts},
    builders, closing,
    delivery::{Delivery, Streams},
    dispatch::{Client, Dispatch},
    preface::{HttpProtocol, Preface},
    service::{Service, Shared},
    socket::Socket,
};
use crate::{config::ClientLimits, log::access::Outcome};

/// How connections are served: what all of them share.
#[derive(Debug)]
pub struct ConnectionServer {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    limits: ClientLimits,
    dispatch: Arc<Dispatch>,
    /// Cancelled when connections are to end as soon as what is in flight has been answered.
    stop: CancellationToken,
    /// Cancelled when they are to end at once.
    abort: CancellationToken,
    /// The connections that may still read another request.
    readers: TaskTracker,
}

impl ConnectionServer {
    /// Serves requests by `dispatch`, within `limits`.
    #[must_use]
    pub fn new(
        limits: ClientLimits,
        dispatch: Arc<Dispatch>,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> Self {
        Self {
            http1: builders::http1(&limits),
            http2: builders::http2(&limits),
            limits,
            dispatch,
            stop,
            abort,
            readers: TaskTracker::new(),
        }
    }

    /// Asks the client of each further response over HTTP/1 to close the connection (RFC 9112, section
    /// 9.6).
    pub fn ask_to_close(&self) {
        self.dispatch.asks_to_close.store(true, Ordering::Relaxed);
    }

    /// Returns the connections that may still read another request. One of HTTP/1 leaves the set when
    /// it is told to stop, one of HTTP/2 when it has ended.
    #[must_use]
    pub fn readers(&self) -> &TaskTracker {
        &self.readers
    }

    /// Serves one connection to its end, and then gives its permit back.
    pub async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let reader = self.readers.token();
        let served = match self.first_bytes(&mut stream).await {
            // Each in a box: a connection must not take the room of the other protocol's.
            Ok(Start::Http1(preface, opened)) => {
                let activity = Activity::new(true, opened);
                let client = Client { peer, activity };
                Box::pin(self.serve_http1(stream, preface, client, reader)).await
            }
            Ok(Start::Http2(preface, opened)) => {
                let activity = Activity::new(false, opened);
                let client = Client { peer, activity };
                Box::pin(self.serve_http2(stream, preface, client, reader)).await
            }
            Ok(Start::SlowHead) => self.slow_head(&mut stream, peer).await,
            Ok(Start::Nothing) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            debug!(%peer, error = &*error, "Connection failed");
        }
    }

    /// Reads the first bytes: a client that knows that this is HTTP/2 starts with a preface that no
    /// HTTP/1 request starts with (RFC 9113, section 3.4). A client that stops within the preface is a
    /// slow client of HTTP/1. When the server stops, what is on its way has a moment to come.
    async fn first_bytes(&self, stream: &mut TcpStream) -> io::Result<Start> {
        let mut preface = Preface::default();
        let mut opened = Instant::now();
        let mut limit = pin!(time::sleep(self.limits.keep_alive));
        let mut stopped = pin!(async {
            self.stop.cancelled().await;
            time::sleep(ON_ITS_WAY).await;
        });
        loop {
            let is_first = preface.is_empty();
            let protocol = tokio::select! {
                protocol = preface.read(stream) => protocol?,
                () = &mut limit => return Ok(if is_first { Start::Nothing } else { Start::SlowHead }),
                () = &mut stopped => return Ok(Start::Nothing),
                () = self.abort.cancelled() => return Ok(Start::Nothing),
            };
            if is_first {
                opened = Instant::now();
                limit.as_mut().reset(opened + self.limits.header_timeout);
            }
            match protocol {
                Some(HttpProtocol::Http1) => return Ok(Start::Http1(preface, opened)),
                Some(HttpProtocol::Http2) => return Ok(Start::Http2(preface, opened)),
                None => {}
            }
        }
    }

    async fn serve_http1(
        &self,
        stream: TcpStream,
        preface: Preface,
        client: Client,
        reader: TaskTrackerToken,
    ) -> Result<(), Error> {
        let (peer, activity) = (client.peer, Arc::clone(&client.activity));
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity), preface));
        let shared = self.shared(client);
        let service = Service::new(&shared);
        let mut connection = self.http1.serve_connection(socket, service).with_upgrades();
        let mut delivery = Delivery::of_connection(self.limits.body_timeout);
        let ended = self
            .keep_time(
                Pin::new(&mut connection),
                &activity,
                &mut delivery,
                reader,
                http1::UpgradeableConnection::graceful_shutdown,
            )
            .await;
        if let Ended::CutOff(why) = ended {
            // A response that is not complete asks the delivery why.
            delivery.scope(|| drop(connection));
            return Err(why.into());
        }
        let end = async {
            let Some(parts) = connection.into_parts() else {
                // An app has it now. It is still one of the connections that are open.
                activity.ended().await;
                return Ok(());
            };
            let mut stream = parts.io.into_inner().into_inner();
            let Ended::Served(served) = ended else {
                return self.slow_head(&mut stream, peer).await;
            };
            let is_refused = served
                .as_ref()
                .is_err_and(|error| self.refused_head(peer, error));
            closing::linger(
                &mut stream,
                is_refused || activity.is_body_unread(),
                &self.stop,
            )
            .await;
            Ok(served?)
        };
        let ended = self.abort.run_until_cancelled(end).await;
        ended.unwrap_or_else(|| Err(STOPPED.into()))
    }

    /// Answers the head of a request that did not come in time, which hyper has no answer to.
    async fn slow_head(&self, stream: &mut TcpStream, peer: SocketAddr) -> Result<(), Error> {
        let status = StatusCode::REQUEST_TIMEOUT;
        let trails = &self.dispatch.trails;
        trails.no_request(peer, status, Outcome::TimedOut);
        closing::answer(stream, REQUEST_TIMEOUT, &self.stop).await?;
        Err("the head of a request took longer than --header-timeout".into())
    }

    fn shared(&self, client: Client) -> Shared {
        let dispatch = Arc::clone(&self.dispatch);
        Shared { dispatch, client }
    }

    /// Tells the access log of a head that hyper refused, with the status that hyper answered but does
    /// not tell. Whether that was so.
    fn refused_head(&self, peer: SocketAddr, error: &hyper::Error) -> bool {
        let (status, outcome) = match error {
            error if error.is_parse_too_large() && error.to_string().contains("URI") => {
                (StatusCode::URI_TOO_LONG, Outcome::Refused)
            }
            error if error.is_parse_too_large() => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Outcome::Refused,
            ),
            error if error.is_parse() => (StatusCode::BAD_REQUEST, Outcome::Malformed),
            _ => return false,
        };
        self.dispatch.trails.no_request(peer, status, outcome);
        true
    }

    async fn serve_http2(
        &self,
        stream: TcpStream,
        preface: Preface,
        client: Client,
        reader: TaskTrackerToken,
    ) -> Result<(), Error> {
        let (peer, activity) = (client.peer, Arc::clone(&client.activity));
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity), preface));
        // Each request is a task of its own.
        let service = Service::new(Arc::new(self.shared(client)));
        let connection = pin!(self.http2.serve_connection(socket, service));
        let mut delivery = Delivery::of_connection(self.limits.body_timeout);
        match self
            .keep_time(
                connection,
                &activity,
                &mut delivery,
                reader,
                http2::Connection::graceful_shutdown,
            )
            .await
        {
            Ended::Served(Err(error)) if builders::is_excessive(&error) => {
                // h2 says so as well, but not who it was.
                warn!(%peer, "The client of an HTTP/2 connection reset too many streams, closing it");
                Err(error.into())
            }
            Ended::Served(served) => Ok(served?),
            Ended::SlowHead => Ok(()),
            Ended::CutOff(why) => Err(why.into()),
        }
    }

    /// Polls a connection to its end, ending it in good order when it is idle for too long or the
    /// server stops.
    async fn keep_time<C>(
        &self,
        mut connection: Pin<&mut C>,
        activity: &Arc<Activity>,
        delivery: &mut Delivery,
        reader: TaskTrackerToken,
        shut_down: impl Fn(Pin<&mut C>),
    ) -> Ended
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let timeouts = Timeouts {
            idle: self.limits.keep_alive,
            head: self.limits.header_timeout,
        };
        let mut timer = pin!(time::sleep(timeouts.idle));
        let mut stop = pin!(self.stop.cancelled());
        let mut abort = pin!(self.abort.cancelled());
        let (mut stopping, mut asked) = (false, false);
        let mut reader = Some(reader);
        // Timers and signals wake the connection by way of `activity`, and are only polled after that.
        let waker = Waker::from(Arc::clone(activity));
        let mut task = Waker::noop().clone();
        let mut poll = |context: &mut Context<'_>| {
            if let Poll::Ready(served) = delivery.scope(|| connection.as_mut().poll(context)) {
                return Poll::Ready(Ended::Served(served));
            }
            if !task.will_wake(context.waker()) {
                task.clone_from(context.waker());
                activity.register_task(&task);
            }
            // Bytes that came but made no request are a part of one, which now has to come in time.
            let limit = activity.limit(timeouts);
            let limit = limit.filter(|limit| *limit < timer.deadline());
            if let Some(limit) = limit {
                timer.as_mut().reset(limit);
            }
            if !activity.take_woken() && limit.is_none() && !delivery.is_new() {
                return Poll::Pending;
            }
            let context = &mut Context::from_waker(&waker);
            if let Poll::Ready(over) = delivery.poll_over(context) {
                return Poll::Ready(Ended::CutOff(over.as_str()));
            }
            while timer.as_mut().poll(context).is_ready() {
                match activity.check(timeouts) {
                    TimeoutCheck::Later(limit) => timer.as_mut().reset(limit),
                    // The last response is still on its way, and its delivery has a limit of its own.
                    _ if delivery.waits_for_client() => {
                        timer.as_mut().reset(Instant::now() + timeouts.idle);
                    }
                    TimeoutCheck::SlowHead => return Poll::Ready(Ended::SlowHead),
                    TimeoutCheck::Idle if asked => {
                        return Poll::Ready(Ended::CutOff(
                            "it was idle, and did not go when asked",
                        ));
                    }
                    TimeoutCheck::Idle => {
                        asked = true;
                        timer.as_mut().reset(Instant::now() + timeouts.idle);
                        activity.ends();
                        shut_down(connection.as_mut());
                        task.wake_by_ref();
                    }
                }
            }
            if abort.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ended::CutOff(STOPPED));
            }
            if !stopping && stop.as_mut().poll(context).is_ready() {
                stopping = true;
                activity.ends();
                shut_down(connection.as_mut());
                if activity.is_http1() {
                    reader = None;
                }
                task.wake_by_ref();
            }
            Poll::Pending
        };
        poll_fn(&mut poll).await
    }
}

/// What a connection starts with, and when its first byte came.
enum Start {
    Http1(Preface, Instant),
    Http2(Preface, Instant),
    /// A part of what may become a head or the preface of HTTP/2.
    SlowHead,
    /// Nothing in time.
    Nothing,
}

/// How a connection ended.
enum Ended {
    Served(hyper::Result<()>),
    SlowHead,
    /// And why.
    CutOff(&'static str),
}

/// Why connections are cut off when the server has waited long enough for them.
const STOPPED: &str = "the server stops";

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long the first request of a connection may be on its way when the server stops.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
