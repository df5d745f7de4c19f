//! One connection: which protocol it speaks, its time limits, and its end.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    activity::{Activity, Due, Patience},
    dispatch::{Client, Dispatch},
    preface::{Speaks, speaks},
    service::{Service, Shared},
    socket::Socket,
};
use crate::{config::Limits, log::access::Outcome};

/// How connections are served: what all of them share.
#[derive(Debug)]
pub struct Protocol {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    limits: Limits,
    dispatch: Arc<Dispatch>,
    /// Cancelled when connections are to end as soon as what is in flight has been answered.
    stop: CancellationToken,
    /// Cancelled when they are to end at once.
    cut: CancellationToken,
}

impl Protocol {
    /// Serves requests by `dispatch`, within `limits`.
    #[must_use]
    pub fn new(
        limits: Limits,
        dispatch: Arc<Dispatch>,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        // `Activity` keeps the time: hyper's timer for heads also runs between two requests.
        // `Socket` looks whether the client is still there.
        http1
            .half_close(true)
            .header_read_timeout(None)
            .max_header_size(limits.max_header_bytes as usize)
            // A head has to fit in, with room for what is not a header.
            .max_buf_size(BUFFER.max(2 * limits.max_header_bytes as usize));
        if limits.max_headers != HTTP1_HEADERS {
            // It costs an allocation a request.
            http1.max_headers(limits.max_headers.into());
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .max_header_list_size(limits.max_header_bytes);
        Self {
            http1,
            http2,
            limits,
            dispatch,
            stop,
            cut,
        }
    }

    /// Serves one connection to its end, and then gives its permit back.
    pub async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let client = Client {
            peer,
            activity: Activity::new(),
        };
        let served = match self.first_bytes(&stream).await {
            // Each apart: a connection must not take the room of the other protocol's.
            Ok(Some(Speaks::Http1)) => Box::pin(self.serve_http1(stream, client)).await,
            Ok(Some(Speaks::Http2)) => Box::pin(self.serve_http2(stream, client)).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            debug!(%peer, error = &*error, "Connection failed");
        }
    }

    /// Looks at the first bytes without taking them: a client that knows that this is HTTP/2 starts
    /// with a preface that no HTTP/1 request starts with (RFC 9113, section 3.4). None when no bytes
    /// came in time: when the server stops, what is on its way has a moment.
    async fn first_bytes(&self, stream: &TcpStream) -> io::Result<Option<Speaks>> {
        let come = time::timeout(self.limits.keep_alive, stream.readable());
        let stopped = async {
            self.stop.cancelled().await;
            time::sleep(ON_ITS_WAY).await;
        };
        tokio::select! {
            come = come => match come {
                Ok(come) => come?,
                Err(_) => return Ok(None),
            },
            () = stopped => return Ok(None),
            () = self.cut.cancelled() => return Ok(None),
        }
        // A part of the preface is the part of a head as well, and is told that it is slow.
        let spoken = time::timeout(self.limits.header_timeout, speaks(stream)).await;
        spoken.unwrap_or(Ok(Speaks::Http1)).map(Some)
    }

    async fn serve_http1(&self, stream: TcpStream, client: Client) -> Result<(), Error> {
        let (peer, activity) = (client.peer, Arc::clone(&client.activity));
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity), true));
        let shared = self.shared(client);
        let service = Service::new(&shared);
        let mut connection = self.http1.serve_connection(socket, service).with_upgrades();
        let ended = self
            .keep_time(
                Pin::new(&mut connection),
                &activity,
                http1::UpgradeableConnection::graceful_shutdown,
            )
            .await;
        if let Ended::CutOff(why) = ended {
            return Err(why.into());
        }
        let end = async {
            let Some(parts) = connection.into_parts() else {
                // An app has it now. It is still one of the connections that are open.
                activity.ended().await;
                return Ok(());
            };
            let mut stream = parts.io.into_inner().into_inner();
            match ended {
                Ended::Served(served) => {
                    if let Err(error) = &served {
                        self.refused_head(peer, error);
                    }
                    linger(&mut stream).await;
                    Ok(served?)
                }
                Ended::SlowHead => {
                    let status = StatusCode::REQUEST_TIMEOUT;
                    let trails = &self.dispatch.trails;
                    trails.no_request(peer, status, Outcome::TimedOut);
                    stream.write_all(REQUEST_TIMEOUT).await?;
                    stream.shutdown().await?;
                    linger(&mut stream).await;
                    Err("the head of a request took too long".into())
                }
                Ended::CutOff(why) => Err(why.into()),
            }
        };
        let ended = self.cut.run_until_cancelled(end).await;
        ended.unwrap_or_else(|| Err(STOPPED.into()))
    }

    fn shared(&self, client: Client) -> Shared {
        let dispatch = Arc::clone(&self.dispatch);
        Shared { dispatch, client }
    }

    /// Tells the access log of a head that hyper refused with a status that it does not tell.
    fn refused_head(&self, peer: SocketAddr, error: &hyper::Error) {
        let (status, outcome) = match error {
            error if error.is_parse_too_large() && error.to_string().contains("URI") => {
                (StatusCode::URI_TOO_LONG, Outcome::Refused)
            }
            error if error.is_parse_too_large() => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Outcome::Refused,
            ),
            error if error.is_parse() => (StatusCode::BAD_REQUEST, Outcome::Malformed),
            _ => return,
        };
        self.dispatch.trails.no_request(peer, status, outcome);
    }

    async fn serve_http2(&self, stream: TcpStream, client: Client) -> Result<(), Error> {
        let activity = Arc::clone(&client.activity);
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity), false));
        // Each request is a task of its own.
        let service = Service::new(Arc::new(self.shared(client)));
        let connection = pin!(self.http2.serve_connection(socket, service));
        match self
            .keep_time(connection, &activity, http2::Connection::graceful_shutdown)
            .await
        {
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
        shut_down: impl Fn(Pin<&mut C>),
    ) -> Ended
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let patience = Patience {
            idle: self.limits.keep_alive,
            head: self.limits.header_timeout,
            body: self.limits.body_timeout,
        };
        let mut timer = pin!(time::sleep(patience.idle));
        let mut stop = pin!(self.stop.cancelled());
        let mut cut = pin!(self.cut.cancelled());
        let (mut stopping, mut asked) = (false, false);
        // What is not the connection wakes it by way of an alarm, and is not looked at without one.
        let alarm = Waker::from(Arc::clone(activity));
        let mut task = Waker::noop().clone();
        let mut poll = move |context: &mut Context<'_>| {
            if let Poll::Ready(served) = connection.as_mut().poll(context) {
                return Poll::Ready(Ended::Served(served));
            }
            if !task.will_wake(context.waker()) {
                task.clone_from(context.waker());
                activity.alarm(&task);
            }
            // Bytes that came but made no request are a part of one, which now has to come in time. So
            // has room for what is to be sent.
            let limit = activity.limit(patience);
            let limit = limit.filter(|limit| *limit < timer.deadline());
            if let Some(limit) = limit {
                timer.as_mut().reset(limit);
            }
            if !activity.take_alarm() && limit.is_none() {
                return Poll::Pending;
            }
            let context = &mut Context::from_waker(&alarm);
            while timer.as_mut().poll(context).is_ready() {
                match activity.due(patience) {
                    Due::Later(limit) => timer.as_mut().reset(limit),
                    Due::SlowHead => return Poll::Ready(Ended::SlowHead),
                    Due::SlowReader => {
                        return Poll::Ready(Ended::CutOff("its client took nothing of a response"));
                    }
                    Due::Idle if asked => {
                        return Poll::Ready(Ended::CutOff(
                            "it was idle, and did not go when asked",
                        ));
                    }
                    Due::Idle => {
                        asked = true;
                        timer.as_mut().reset(Instant::now() + patience.idle);
                        shut_down(connection.as_mut());
                        task.wake_by_ref();
                    }
                }
            }
            if cut.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ended::CutOff(STOPPED));
            }
            if !stopping && stop.as_mut().poll(context).is_ready() {
                stopping = true;
                shut_down(connection.as_mut());
                task.wake_by_ref();
            }
            Poll::Pending
        };
        poll_fn(&mut poll).await
    }
}

/// Takes in what a client still sends, for a while: closing a socket with unread bytes resets the
/// connection, and the client may lose the response that it has not read yet.
async fn linger(stream: &mut TcpStream) {
    // Not in the future, which is as large as this for as long as the connection is there.
    let mut unread = vec![0; 4096];
    // None: the client is done, or nothing is on its way that anybody knows of.
    if !matches!(stream.try_read(&mut unread), Ok(1..)) {
        return;
    }
    let drain = async { while stream.read(&mut unread).await.is_ok_and(|count| count > 0) {} };
    let _ = time::timeout(LINGER, drain).await;
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

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Up to how many bytes are read at once. The pieces of a large body that are no larger stay in memory
/// that is used again; the system's memory for larger ones is asked for, and given back, each time.
const BUFFER: usize = 64 << 10;

/// How many headers hyper takes in HTTP/1 without being told.
const HTTP1_HEADERS: u16 = 100;

/// hyper has no answer to a head that does not come.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long the first request of a connection may be on its way when the server stops.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// How long to take in what a client sends after the last response.
const LINGER: Duration = Duration::from_secs(2);
