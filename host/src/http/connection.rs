//! One connection: the protocol that it speaks, the service of its requests, and its end.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
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
    activity::{Activity, Timeouts},
    builders, closing,
    delivery::{Delivery, StreamExecutor},
    dev::Dev,
    dispatch::{Client, Dispatch},
    driver::{ABORTED, ConnectionEnd, Signals, drive},
    preface::{HttpProtocol, Preface},
    service::{Service, SharedState},
    socket::Socket,
};
use crate::{config::ClientLimits, log::access::RequestOutcome};

/// Serves connections. Shared by all connections of a worker.
#[derive(Debug)]
pub struct ConnectionServer {
    http1: http1::Builder,
    http2: http2::Builder<StreamExecutor>,
    limits: ClientLimits,
    dispatch: Arc<Dispatch>,
    /// The part for a development session. None in any other server.
    dev: Option<Arc<Dev>>,
    /// Cancelled when connections are to close as soon as what is in flight has been answered.
    stop: CancellationToken,
    /// Cancelled when connections are to close at once.
    abort: CancellationToken,
    /// The connections that may still read another request.
    readers: TaskTracker,
}

impl ConnectionServer {
    /// Answers requests by `dispatch`, within `limits`. Connections close in good order when `stop` is
    /// cancelled, and at once when `abort` is.
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
            dev: Dev::from_environment(),
            stop,
            abort,
            readers: TaskTracker::new(),
        }
    }

    /// Makes each further response over HTTP/1 ask its client to close the connection.
    pub fn ask_to_close(&self) {
        self.dispatch.asks_to_close.store(true, Ordering::Relaxed);
    }

    /// Returns the connections that may still read another request. A connection of HTTP/1 leaves the set when it
    /// is told to stop, and one of HTTP/2 when it has ended.
    #[must_use]
    pub fn readers(&self) -> &TaskTracker {
        &self.readers
    }

    /// Serves one connection until it is closed, and holds the permit until then.
    pub async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let reader = self.readers.token();
        let served = match self.read_preface(&mut stream).await {
            // The future of each protocol is in a box of its own, so that a connection takes no memory
            // for the other protocol.
            Ok(Opening::Http1(preface, opened_at)) => {
                let activity = Activity::new(true, opened_at);
                let parts = self.parts(stream, peer, preface, activity, reader);
                Box::pin(self.serve_http1(parts)).await
            }
            Ok(Opening::Http2(preface, opened_at)) => {
                let activity = Activity::new(false, opened_at);
                let parts = self.parts(stream, peer, preface, activity, reader);
                Box::pin(self.serve_http2(parts)).await
            }
            Ok(Opening::SlowHead) => self.answer_slow_head(&mut stream, peer).await,
            Ok(Opening::Nothing) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            debug!(%peer, error = &*error, "Connection failed");
        }
    }

    /// Reads the first bytes of a connection, which tell the protocol.
    ///
    /// A client that knows that this server speaks HTTP/2 begins with a preface that no HTTP/1 request
    /// begins with (RFC 9113, section 3.4). A client that stops within the preface is treated as a slow
    /// HTTP/1 client and gets a 408. When the server stops, a request that is on its way has a moment to
    /// arrive ([`FIRST_BYTES_GRACE`]).
    async fn read_preface(&self, stream: &mut TcpStream) -> io::Result<Opening> {
        let mut preface = Preface::default();
        let mut opened_at = Instant::now();
        let mut deadline = pin!(time::sleep(self.limits.keep_alive));
        let mut stopped = pin!(async {
            self.stop.cancelled().await;
            time::sleep(FIRST_BYTES_GRACE).await;
        });
        loop {
            let is_first = preface.is_empty();
            let protocol = tokio::select! {
                protocol = preface.read(stream) => protocol?,
                () = &mut deadline => {
                    return Ok(if is_first { Opening::Nothing } else { Opening::SlowHead });
                }
                () = &mut stopped => return Ok(Opening::Nothing),
                () = self.abort.cancelled() => return Ok(Opening::Nothing),
            };
            if is_first {
                opened_at = Instant::now();
                let header_deadline = opened_at + self.limits.header_timeout;
                deadline.as_mut().reset(header_deadline);
            }
            match protocol {
                Some(HttpProtocol::Http1) => return Ok(Opening::Http1(preface, opened_at)),
                Some(HttpProtocol::Http2) => return Ok(Opening::Http2(preface, opened_at)),
                None => {}
            }
        }
    }

    /// Makes what every connection needs, whichever protocol it speaks.
    fn parts(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        preface: Preface,
        activity: Arc<Activity>,
        reader: TaskTrackerToken,
    ) -> ConnectionParts {
        ConnectionParts {
            peer,
            socket: TokioIo::new(Socket::new(stream, Arc::clone(&activity), preface)),
            delivery: Delivery::of_connection(self.limits.body_timeout),
            reader,
            shared: SharedState {
                dispatch: Arc::clone(&self.dispatch),
                dev: self.dev.clone(),
                client: Client {
                    peer,
                    activity: Arc::clone(&activity),
                },
            },
            activity,
        }
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            idle: self.limits.keep_alive,
            header: self.limits.header_timeout,
        }
    }

    fn signals(&self) -> Signals<'_> {
        Signals {
            stop: &self.stop,
            abort: &self.abort,
        }
    }

    async fn serve_http1(&self, mut parts: ConnectionParts) -> Result<(), ConnectionError> {
        // One request at a time, so that a plain reference is enough. The connection holds the reference,
        // and is dropped before `shared`.
        let service = Service::new(&parts.shared);
        let connection = self.http1.serve_connection(parts.socket, service);
        let mut connection = connection.with_upgrades();
        let end = drive(
            Pin::new(&mut connection),
            http1::UpgradeableConnection::graceful_shutdown,
            &parts.activity,
            &mut parts.delivery,
            parts.reader,
            self.timeouts(),
            self.signals(),
        )
        .await;
        if let ConnectionEnd::Aborted(reason) = end {
            // The drop of a response that is not complete asks the delivery for the reason.
            parts.delivery.scope(|| drop(connection));
            return Err(reason.into());
        }
        let (peer, activity) = (parts.peer, &parts.activity);
        let close = async {
            let Some(socket) = connection.into_parts() else {
                // An app has taken the connection over, which still counts as open.
                activity.wait_idle().await;
                return Ok(());
            };
            let mut stream = socket.io.into_inner().into_inner();
            // `into_parts` gives the socket back. What is left to do depends on how hyper ended.
            let ConnectionEnd::Served(served) = end else {
                return self.answer_slow_head(&mut stream, peer).await;
            };
            let is_rejected = served
                .as_ref()
                .is_err_and(|error| self.record_rejected_head(peer, error));
            let may_be_sending = is_rejected || activity.is_body_unread();
            closing::linger(&mut stream, may_be_sending, &self.stop).await;
            Ok(served?)
        };
        // All of this may take a while, and has to end when the server aborts.
        let closed = self.abort.run_until_cancelled(close).await;
        closed.unwrap_or_else(|| Err(ABORTED.into()))
    }

    /// Answers 408 to a head that did not come in time. hyper has no answer for that.
    async fn answer_slow_head(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<(), ConnectionError> {
        let status = StatusCode::REQUEST_TIMEOUT;
        let recorder = &self.dispatch.recorder;
        recorder.record_rejected_head(peer, status, RequestOutcome::TimedOut);
        closing::answer(stream, REQUEST_TIMEOUT, &self.stop).await?;
        Err("the head of a request took longer than --header-timeout".into())
    }

    /// Writes the access log line of a head that hyper rejected. Returns false when the connection failed
    /// for another reason.
    ///
    /// hyper answers such a head itself and does not expose the status that it sent, so the status is
    /// derived from the error.
    fn record_rejected_head(&self, peer: SocketAddr, error: &hyper::Error) -> bool {
        let (status, outcome) = match error {
            // hyper has one kind of error for a long URI and for long fields. Only the text differs.
            error if error.is_parse_too_large() && error.to_string().contains("URI") => {
                (StatusCode::URI_TOO_LONG, RequestOutcome::Refused)
            }
            error if error.is_parse_too_large() => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                RequestOutcome::Refused,
            ),
            error if error.is_parse() => (StatusCode::BAD_REQUEST, RequestOutcome::Malformed),
            _ => return false,
        };
        let recorder = &self.dispatch.recorder;
        recorder.record_rejected_head(peer, status, outcome);
        true
    }

    async fn serve_http2(&self, mut parts: ConnectionParts) -> Result<(), ConnectionError> {
        // Each request runs in a task of its own, which outlives a borrow.
        let service = Service::new(Arc::new(parts.shared));
        let connection = pin!(self.http2.serve_connection(parts.socket, service));
        let end = drive(
            connection,
            http2::Connection::graceful_shutdown,
            &parts.activity,
            &mut parts.delivery,
            parts.reader,
            self.timeouts(),
            self.signals(),
        )
        .await;
        match end {
            ConnectionEnd::Served(Err(error)) if builders::is_excessive(&error) => {
                // h2 logs this as well, but without the client's address.
                warn!(peer = %parts.peer, "The client of an HTTP/2 connection reset too many streams, closing it");
                Err(error.into())
            }
            ConnectionEnd::Served(served) => Ok(served?),
            ConnectionEnd::SlowHead => Ok(()),
            ConnectionEnd::Aborted(reason) => Err(reason.into()),
        }
    }
}

/// The parts of a connection of either protocol.
struct ConnectionParts {
    peer: SocketAddr,
    activity: Arc<Activity>,
    socket: TokioIo<Socket>,
    shared: SharedState,
    delivery: Delivery,
    /// Counts the connection as one that may still read a request.
    reader: TaskTrackerToken,
}

/// The beginning of a connection. The [`Instant`] is the time of its first byte.
enum Opening {
    Http1(Preface, Instant),
    Http2(Preface, Instant),
    /// The client stopped in the middle of what may become a head, or the preface of HTTP/2.
    SlowHead,
    /// No byte came in time.
    Nothing,
}

/// Why a connection failed. Only the log gets to see the error.
pub(super) type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long the first request of a connection may be on its way when the server stops.
const FIRST_BYTES_GRACE: Duration = Duration::from_millis(500);
