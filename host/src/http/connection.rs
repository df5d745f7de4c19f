//! Serves one connection: detects its protocol, serves its requests with hyper, and closes it.

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
    delivery::{Delivery, Http2Executor},
    dev::DevLayer,
    dispatch::{Client, Dispatch},
    driver::{ConnectionEnd, SERVER_ABORTS, ShutdownSignals, drive},
    preface::{HttpProtocol, Preface},
    service::{Service, SharedState},
    socket::Socket,
};
use crate::{config::ClientLimits, log::access::RequestOutcome};

/// Serves connections. All connections of a worker share one server.
#[derive(Debug)]
pub struct ConnectionServer {
    http1: http1::Builder,
    http2: http2::Builder<Http2Executor>,
    limits: ClientLimits,
    dispatch: Arc<Dispatch>,
    /// The layer for a development session. `None` in all other servers.
    dev_layer: Option<Arc<DevLayer>>,
    /// Cancelled when connections have to close as soon as the requests in flight are answered.
    stop: CancellationToken,
    /// Cancelled when connections have to close at once.
    abort: CancellationToken,
    /// The connections that may still read another request.
    readers: TaskTracker,
}

impl ConnectionServer {
    /// Creates a server for connections within `limits`. `dispatch` finds the apps of the requests. A cancelled `stop`
    /// shuts the connections down gracefully, and a cancelled `abort` closes them at once.
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
            dev_layer: DevLayer::from_environment(),
            stop,
            abort,
            readers: TaskTracker::new(),
        }
    }

    /// Makes each later response over HTTP/1 ask its client to close the connection.
    pub fn ask_to_close(&self) {
        self.dispatch.asks_to_close.store(true, Ordering::Relaxed);
    }

    /// Returns the tracker of the connections that may still read another request. A connection of HTTP/1 leaves the
    /// tracker when its graceful shutdown starts, and a connection of HTTP/2 when it has ended.
    #[must_use]
    pub fn readers(&self) -> &TaskTracker {
        &self.readers
    }

    /// Serves one connection until the connection is closed, and holds `_permit` until then.
    pub async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let reader_token = self.readers.token();
        let served = match self.read_preface(&mut stream).await {
            // The future of each protocol is boxed. Otherwise the future of every connection would have memory for
            // both protocols.
            Ok(ConnectionStart::Http1(preface, first_byte_at)) => {
                let activity = Activity::new(true, first_byte_at);
                let parts = self.parts(stream, peer, preface, activity, reader_token);
                Box::pin(self.serve_http1(parts)).await
            }
            Ok(ConnectionStart::Http2(preface, first_byte_at)) => {
                let activity = Activity::new(false, first_byte_at);
                let parts = self.parts(stream, peer, preface, activity, reader_token);
                Box::pin(self.serve_http2(parts)).await
            }
            Ok(ConnectionStart::SlowHead) => self.respond_to_slow_head(&mut stream, peer).await,
            Ok(ConnectionStart::NoRequest) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            debug!(%peer, error = &*error, "Connection failed");
        }
    }

    /// Reads the first bytes of a connection, and detects the protocol.
    ///
    /// A client of HTTP/2 begins with a preface that no HTTP/1 request begins with (RFC 9113, section 3.4). A client
    /// that sends only a part of the preface is treated as a slow HTTP/1 client and gets a 408. When the server stops,
    /// the function waits [`FIRST_BYTES_GRACE`] longer, because a first request may be on its way.
    async fn read_preface(&self, stream: &mut TcpStream) -> io::Result<ConnectionStart> {
        let mut preface = Preface::default();
        let mut first_byte_at = Instant::now();
        let mut deadline = pin!(time::sleep(self.limits.keep_alive));
        let mut stopped = pin!(async {
            self.stop.cancelled().await;
            time::sleep(FIRST_BYTES_GRACE).await;
        });
        loop {
            let is_first_read = preface.is_empty();
            let protocol = tokio::select! {
                protocol = preface.read(stream) => protocol?,
                () = &mut deadline => {
                    return Ok(if is_first_read { ConnectionStart::NoRequest } else { ConnectionStart::SlowHead });
                }
                () = &mut stopped => return Ok(ConnectionStart::NoRequest),
                () = self.abort.cancelled() => return Ok(ConnectionStart::NoRequest),
            };
            // The time limit of the head begins with the first byte.
            if is_first_read {
                first_byte_at = Instant::now();
                let header_deadline = first_byte_at + self.limits.header_timeout;
                deadline.as_mut().reset(header_deadline);
            }
            match protocol {
                Some(HttpProtocol::Http1) => {
                    return Ok(ConnectionStart::Http1(preface, first_byte_at));
                }
                Some(HttpProtocol::Http2) => {
                    return Ok(ConnectionStart::Http2(preface, first_byte_at));
                }
                None => {}
            }
        }
    }

    /// Creates the parts of a connection that are the same for both protocols.
    fn parts(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        preface: Preface,
        activity: Arc<Activity>,
        reader_token: TaskTrackerToken,
    ) -> ConnectionParts {
        ConnectionParts {
            peer,
            socket: TokioIo::new(Socket::new(stream, Arc::clone(&activity), preface)),
            delivery: Delivery::of_connection(self.limits.body_timeout),
            reader_token,
            shared: SharedState {
                dispatch: Arc::clone(&self.dispatch),
                dev_layer: self.dev_layer.clone(),
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

    fn signals(&self) -> ShutdownSignals<'_> {
        ShutdownSignals {
            stop: &self.stop,
            abort: &self.abort,
        }
    }

    /// Serves a connection of HTTP/1, and closes it.
    async fn serve_http1(&self, mut parts: ConnectionParts) -> Result<(), ConnectionError> {
        // A plain reference is enough, because the requests run in the task of the connection, one at a time.
        let service = Service::new(&parts.shared);
        let connection = self.http1.serve_connection(parts.socket, service);
        let mut connection = connection.with_upgrades();
        let end = drive(
            Pin::new(&mut connection),
            http1::UpgradeableConnection::graceful_shutdown,
            &parts.activity,
            &mut parts.delivery,
            parts.reader_token,
            self.timeouts(),
            self.signals(),
        )
        .await;
        if let ConnectionEnd::Aborted(reason) = end {
            // In a scope, because an incomplete response reads the reason of the abort from the delivery when it is
            // dropped.
            parts.delivery.scope(|| drop(connection));
            return Err(reason.into());
        }
        let (peer, activity) = (parts.peer, &parts.activity);
        let close = async {
            let Some(socket) = connection.into_parts() else {
                // An app has taken the connection over. The connection counts as open until the app drops it.
                activity.wait_idle().await;
                return Ok(());
            };
            let mut stream = socket.io.into_inner().into_inner();
            let ConnectionEnd::Served(served) = end else {
                return self.respond_to_slow_head(&mut stream, peer).await;
            };
            let is_rejected = served
                .as_ref()
                .is_err_and(|error| self.record_rejected_head(peer, error));
            // hyper did not read the rest of a rejected head or of an unread body.
            let may_be_sending = is_rejected || activity.is_body_unread();
            closing::linger(&mut stream, may_be_sending, &self.stop).await;
            Ok(served?)
        };
        // Closing waits for the client or the app, and has to end when the server aborts.
        let closed = self.abort.run_until_cancelled(close).await;
        closed.unwrap_or_else(|| Err(SERVER_ABORTS.into()))
    }

    /// Sends a 408 for a head that was not complete in time, because hyper sends no response in this case. Returns an
    /// error for the log.
    async fn respond_to_slow_head(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<(), ConnectionError> {
        let status = StatusCode::REQUEST_TIMEOUT;
        let recorder = &self.dispatch.recorder;
        recorder.record_rejected_head(peer, status, RequestOutcome::TimedOut);
        closing::respond_and_linger(stream, REQUEST_TIMEOUT_RESPONSE, &self.stop).await?;
        Err("the head of a request took longer than --header-timeout".into())
    }

    /// Writes the access log line of a head that hyper rejected. Returns false if the connection failed for another
    /// reason.
    ///
    /// hyper responds to such a head itself and does not expose the status. The function derives the status from the
    /// error.
    fn record_rejected_head(&self, peer: SocketAddr, error: &hyper::Error) -> bool {
        let (status, outcome) = match error {
            // hyper has the same kind of error for a URI and for header fields that are too large. Only the text
            // differs.
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

    /// Serves a connection of HTTP/2.
    async fn serve_http2(&self, mut parts: ConnectionParts) -> Result<(), ConnectionError> {
        // An `Arc`, because each request runs in a task of its own, and a task cannot borrow from this one.
        let service = Service::new(Arc::new(parts.shared));
        let connection = pin!(self.http2.serve_connection(parts.socket, service));
        let end = drive(
            connection,
            http2::Connection::graceful_shutdown,
            &parts.activity,
            &mut parts.delivery,
            parts.reader_token,
            self.timeouts(),
            self.signals(),
        )
        .await;
        match end {
            ConnectionEnd::Served(Err(error)) if builders::is_enhance_your_calm(&error) => {
                // h2 logs this error as well, but without the address of the client.
                warn!(peer = %parts.peer, "The client of an HTTP/2 connection reset too many streams, closing it");
                Err(error.into())
            }
            ConnectionEnd::Served(served) => Ok(served?),
            // Does not happen: the activity tracks heads only over HTTP/1.
            ConnectionEnd::SlowHead => Ok(()),
            ConnectionEnd::Aborted(reason) => Err(reason.into()),
        }
    }
}

/// The parts of a connection that are the same for both protocols.
struct ConnectionParts {
    peer: SocketAddr,
    activity: Arc<Activity>,
    socket: TokioIo<Socket>,
    shared: SharedState,
    delivery: Delivery,
    /// Counts the connection in [`ConnectionServer::readers`].
    reader_token: TaskTrackerToken,
}

/// The result of reading the first bytes of a connection. The [`Instant`] is the time of the first byte.
enum ConnectionStart {
    /// The client speaks HTTP/1.
    Http1(Preface, Instant),
    /// The client speaks HTTP/2.
    Http2(Preface, Instant),
    /// The client sent only a part of the preface of HTTP/2 in time.
    SlowHead,
    /// The client sent no byte in time, or the server stops. The connection is closed without a response.
    NoRequest,
}

/// Why a connection failed. The error is only logged.
pub(super) type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// The response to a head that was not complete in time.
const REQUEST_TIMEOUT_RESPONSE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long a connection waits for its first bytes after the server began to stop.
const FIRST_BYTES_GRACE: Duration = Duration::from_millis(500);
