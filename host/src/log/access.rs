//! The access log: one line for every request, whatever its outcome and whatever the level of the log.
//!
//! The line is written when the request is over: the last byte of the response was handed to the connection,
//! or it is clear that no more bytes will come.

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

/// Writes the lines of requests.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessFormat,
    output: Output,
    /// Paths whose successful requests get no line.
    skip: Vec<String>,
    /// Cancelled when the server aborts the requests that are left.
    abort: CancellationToken,
}

impl AccessLog {
    /// Returns an access log that writes to `output`. Successful requests for the paths in `skip` get no line.
    /// `abort` is cancelled when the server aborts the requests that are left.
    #[must_use]
    pub fn new(
        format: AccessFormat,
        output: Output,
        skip: Vec<String>,
        abort: CancellationToken,
    ) -> Self {
        Self {
            format,
            output,
            skip,
            abort,
        }
    }

    /// Begins the record of a request. Its line is written when the record is dropped.
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

    /// Writes the line of a head that did not become a request, because it is malformed, too large or too slow.
    pub fn record_rejected_head(
        self: &Arc<Self>,
        peer: SocketAddr,
        status: StatusCode,
        outcome: RequestOutcome,
    ) {
        let mut record = AccessRecord::new(self, peer, None, None);
        record.status = status.as_u16();
        record.set_outcome(outcome);
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The whole response was handed to the connection.
    Answered,
    /// The client left before the response was complete.
    ClientGone,
    /// The request was aborted, because the time to drain the server or the generation was over.
    CutOff,
    /// The app failed before the response was complete.
    Failed,
    /// The client sent something that is not valid HTTP.
    Malformed,
    /// The app panicked.
    Panicked,
    /// The request exceeds a limit, or no app serves its path.
    Refused,
    /// The client did not send or take bytes in time.
    TimedOut,
}

impl RequestOutcome {
    /// Returns the word for the outcome in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientGone => "client_gone",
            Self::CutOff => "cut_off",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Panicked => "panicked",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The data of one request, as far as they are known.
#[derive(Debug)]
pub struct AccessRecord {
    access: Arc<AccessLog>,
    /// When the head was complete.
    started: Instant,
    /// The wall-clock time of `started`.
    time: SystemTime,
    peer: SocketAddr,
    /// None for a head that did not become a request.
    head: Option<RequestHead>,
    log: Option<Arc<RequestLog>>,
    /// The app's name and generation.
    app: Option<(&'static str, u64)>,
    status: u16,
    /// The fields of the response that the format needs.
    headers: Vec<(HeaderName, HeaderValue)>,
    bytes_sent: u64,
    /// None until the outcome is known.
    outcome: Option<RequestOutcome>,
}

/// The parts of a request's head that a line may have.
#[derive(Debug)]
struct RequestHead {
    method: Method,
    uri: Uri,
    version: Version,
    /// The fields that the format needs.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl AccessRecord {
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
            status: STATUS_CLIENT_GONE,
            headers: Vec::new(),
            bytes_sent: 0,
            outcome: None,
        }
    }

    /// Stores which app the request has entered.
    pub fn set_app(&mut self, plugin: &'static str, generation: u64) {
        self.app = Some((plugin, generation));
    }

    /// Stores the head of the response.
    pub fn set_response<B: Body>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        let names = self.access.format.response_headers();
        self.headers = select_headers(response.headers(), names);
        // hyper adds the length of a body that is whole, unless the status allows no body.
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

    /// Adds bytes of the response's body that were handed to the connection.
    pub fn add_bytes_sent(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
    }

    /// Sets the outcome, unless it was set before.
    pub fn set_outcome(&mut self, outcome: RequestOutcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Whether the request gets no line.
    fn is_skipped(&self) -> bool {
        let path = self.head.as_ref().map(|head| head.uri.path());
        self.outcome == Some(RequestOutcome::Answered)
            && self.status < 400
            && path.is_some_and(|path| self.access.skip.iter().any(|skip| skip == path))
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        // Without an outcome so far, hyper has dropped the response before its end: the connection is gone.
        self.set_outcome(if self.access.abort.is_cancelled() {
            RequestOutcome::CutOff
        } else {
            RequestOutcome::ClientGone
        });
        // One write with the line end, as for every line.
        if !self.is_skipped() {
            let mut line = self.access.format.line(self);
            line.push('\n');
            self.access.output.write(line.as_bytes());
        }
    }
}

/// Returns the header fields of these names. Of several fields of one name the first counts.
fn select_headers(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let value = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    names.iter().filter_map(value).collect()
}

/// The status in the line of a request whose client left before the response began, as nginx writes it.
const STATUS_CLIENT_GONE: u16 = 499;
