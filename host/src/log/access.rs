//! The access log: one line for every request, for any outcome and at any level of the log.
//!
//! The line is written when the request has ended: the last byte of the response was passed to the connection, or the
//! request has failed or was aborted.

mod format;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version,
    header::CONTENT_LENGTH, request,
};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use super::{output::Output, request::RequestLog};

pub use self::format::{AccessFormat, FormatError};

/// Writes one line for each request.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessFormat,
    output: Output,
    /// The paths whose successful requests get no line.
    skipped_paths: Vec<String>,
    /// Cancelled when the server aborts all requests in flight.
    abort: CancellationToken,
}

impl AccessLog {
    /// Returns an access log that writes to `output`. Successful requests for `skipped_paths` get no line. `abort` must
    /// be cancelled when the server aborts all requests in flight.
    #[must_use]
    pub fn new(
        format: AccessFormat,
        output: Output,
        skipped_paths: Vec<String>,
        abort: CancellationToken,
    ) -> Self {
        Self {
            format,
            output,
            skipped_paths,
            abort,
        }
    }

    /// Begins the record of a request. The record writes the line of the request when the record is dropped.
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        request: &request::Parts,
        peer: SocketAddr,
        log: &Arc<RequestLog>,
    ) -> Box<AccessRecord> {
        let head = RequestHead {
            method: request.method.clone(),
            uri: request.uri.clone(),
            version: request.version,
            headers: select_headers(&request.headers, self.format.request_headers()),
        };
        Box::new(AccessRecord::new(
            self,
            peer,
            Some(head),
            Some(Arc::clone(log)),
        ))
    }

    /// Writes a line for a request head that was rejected, because the head is malformed, too large or too slow.
    pub fn record_rejected_head(
        self: &Arc<Self>,
        peer: SocketAddr,
        status: StatusCode,
        outcome: RequestOutcome,
    ) {
        let mut record = AccessRecord::new(self, peer, None, None);
        record.status = status.as_u16();
        record.set_outcome(outcome);
        // The record is dropped here, and the drop writes the line.
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The whole response was passed to the connection.
    Answered,
    /// The client closed the connection or the stream before the response was complete.
    ClientGone,
    /// The host aborted the request, because the time limit to drain the server or the generation was over.
    Aborted,
    /// The app failed before the response was complete.
    Failed,
    /// The client sent bytes that are not valid HTTP.
    Malformed,
    /// The app panicked.
    Panicked,
    /// The request exceeds a limit, or no app serves its path.
    Refused,
    /// The client did not send or read bytes in time.
    TimedOut,
}

impl RequestOutcome {
    /// Returns the name of the outcome in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientGone => "client_gone",
            Self::Aborted => "cut_off",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Panicked => "panicked",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Collects the data of one request for its line. Writes the line when the record is dropped.
#[derive(Debug)]
pub struct AccessRecord {
    access: Arc<AccessLog>,
    /// When the record was begun: when the head of the request was complete, or was rejected.
    started: Instant,
    /// The wall-clock time of `started`.
    time: SystemTime,
    /// The address of the client.
    peer: SocketAddr,
    /// `None` if the head was rejected.
    head: Option<RequestHead>,
    /// The id and the trace of the request. `None` if the head was rejected.
    log: Option<Arc<RequestLog>>,
    /// The name and the generation of the app. `None` if the request has entered no app.
    app: Option<(&'static str, u64)>,
    /// The status of the response. [`STATUS_CLIENT_GONE`] until the response begins.
    status: u16,
    /// The header fields of the response that the format needs.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The bytes of the response's body that were passed to the connection.
    bytes_sent: u64,
    /// `None` until the outcome is known.
    outcome: Option<RequestOutcome>,
}

/// The parts of a request's head that a line may contain.
#[derive(Debug)]
struct RequestHead {
    method: Method,
    uri: Uri,
    version: Version,
    /// The header fields that the format needs.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl AccessRecord {
    /// Returns a record that begins now.
    fn new(
        access: &Arc<AccessLog>,
        peer: SocketAddr,
        head: Option<RequestHead>,
        log: Option<Arc<RequestLog>>,
    ) -> Self {
        Self {
            access: Arc::clone(access),
            started: Instant::now(),
            time: SystemTime::now(),
            peer,
            head,
            log,
            app: None,
            // Stays in the line if no response begins.
            status: STATUS_CLIENT_GONE,
            headers: Vec::new(),
            bytes_sent: 0,
            outcome: None,
        }
    }

    /// Stores the app that the request has entered.
    pub fn set_app(&mut self, plugin: &'static str, generation: u64) {
        self.app = Some((plugin, generation));
    }

    /// Stores the head of the response.
    pub fn set_response<B: Body>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        let names = self.access.format.response_headers();
        self.headers = select_headers(response.headers(), names);
        // hyper adds a content-length after this call if the length of the body is known, except for a status without a
        // body. The line must have the field that hyper will send.
        let is_bodiless = matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if names.contains(&CONTENT_LENGTH)
            && !response.headers().contains_key(CONTENT_LENGTH)
            && !is_bodiless
            && let Some(len @ 1..) = response.body().size_hint().exact()
        {
            self.headers.push((CONTENT_LENGTH, len.into()));
        }
    }

    /// Adds bytes of the response's body that were passed to the connection.
    pub fn add_bytes_sent(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
    }

    /// Sets the outcome, unless an outcome was set before.
    pub fn set_outcome(&mut self, outcome: RequestOutcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Returns whether the request gets no line: a successful request for one of the skipped paths.
    fn is_skipped(&self) -> bool {
        let path = self.head.as_ref().map(|head| head.uri.path());
        self.outcome == Some(RequestOutcome::Answered)
            && self.status < 400
            && path.is_some_and(|path| {
                let mut skipped_paths = self.access.skipped_paths.iter();
                skipped_paths.any(|skipped| skipped == path)
            })
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        // If no outcome was set, hyper has dropped the response before its end, because the connection has ended.
        self.set_outcome(if self.access.abort.is_cancelled() {
            RequestOutcome::Aborted
        } else {
            RequestOutcome::ClientGone
        });
        // The line and its line end are passed in one call, so that both go out in one write and lines are not mixed.
        if !self.is_skipped() {
            let mut line = self.access.format.line(self);
            line.push('\n');
            self.access.output.write(line.as_bytes());
        }
    }
}

/// Returns the header fields with these names. If several fields have the same name, returns the first of them.
fn select_headers(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let field = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    names.iter().filter_map(field).collect()
}

/// The status in the line of a request whose client closed the connection before the response began. nginx uses the
/// same number.
const STATUS_CLIENT_GONE: u16 = 499;
