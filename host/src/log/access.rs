//! The access log: a line for every request, whatever came of it, independent of the level.
//!
//! The line is written when the request is over: when the last byte of the response was handed to
//! the connection, or when it is clear that there will be none.

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

/// Writes lines about requests.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessFormat,
    output: Output,
    /// Paths whose successes are left out.
    skip: Vec<String>,
    /// Cancelled when the server cuts off what is left.
    cut: CancellationToken,
}

impl AccessLog {
    /// Writes to `output`, but not of successes at the paths in `skip`. `cut` is cancelled when the
    /// server cuts off what is left.
    #[must_use]
    pub fn new(
        format: AccessFormat,
        output: Output,
        skip: Vec<String>,
        cut: CancellationToken,
    ) -> Self {
        Self {
            format,
            output,
            skip,
            cut,
        }
    }

    /// A request that begins. Its line is written when the result is dropped.
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        request: &request::Parts,
        peer: SocketAddr,
        log: &Arc<RequestLog>,
    ) -> Box<Exchange> {
        let head = Head {
            method: request.method.clone(),
            uri: request.uri.clone(),
            version: request.version,
            headers: pick(&request.headers, self.format.request_headers()),
        };
        Box::new(Exchange::new(self, peer, Some(head), Some(Arc::clone(log))))
    }

    /// Writes the line for a head that did not become a request: it is malformed, too large or too
    /// slow.
    pub fn no_request(self: &Arc<Self>, peer: SocketAddr, status: StatusCode, outcome: Outcome) {
        let mut exchange = Exchange::new(self, peer, None, None);
        exchange.status = status.as_u16();
        exchange.end(outcome);
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was handed to the connection.
    Answered,
    /// The client went away before that.
    ClientGone,
    /// The server, or the generation, was done with waiting.
    CutOff,
    /// The app failed before the response was complete.
    Failed,
    /// What came is not HTTP.
    Malformed,
    /// The app panicked.
    Panicked,
    /// A limit was passed, or nothing serves the path.
    Refused,
    /// The head or the body did not come in time.
    TimedOut,
}

impl Outcome {
    /// The word for it.
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

/// A request on its way, and what is known of it so far.
#[derive(Debug)]
pub struct Exchange {
    access: Arc<AccessLog>,
    began: Instant,
    at: SystemTime,
    peer: SocketAddr,
    /// None when there was no whole head.
    head: Option<Head>,
    log: Option<Arc<RequestLog>>,
    app: Option<(&'static str, u64)>,
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    sent: u64,
    outcome: Option<Outcome>,
}

/// What a line may say of a request's head.
#[derive(Debug)]
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Exchange {
    fn new(
        access: &Arc<AccessLog>,
        peer: SocketAddr,
        head: Option<Head>,
        log: Option<Arc<RequestLog>>,
    ) -> Self {
        Self {
            access: Arc::clone(access),
            began: Instant::now(),
            at: SystemTime::now(),
            peer,
            head,
            log,
            app: None,
            status: CLIENT_GONE,
            headers: Vec::new(),
            sent: 0,
            outcome: None,
        }
    }

    /// It is in a generation of an app.
    pub fn enter(&mut self, plugin: &'static str, generation: u64) {
        self.app = Some((plugin, generation));
    }

    /// Its response begins.
    pub fn respond<B: Body>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        let names = self.access.format.response_headers();
        self.headers = pick(response.headers(), names);
        // What the server adds for a body whose length is known, where there may be one.
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

    /// A part of its response's body was handed to the connection.
    pub fn send(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// What came of it; the first word counts.
    pub fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    fn is_skipped(&self) -> bool {
        let path = self.head.as_ref().map(|head| head.uri.path());
        self.outcome == Some(Outcome::Answered)
            && self.status < 400
            && path.is_some_and(|path| self.access.skip.iter().any(|skip| skip == path))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(if self.access.cut.is_cancelled() {
            Outcome::CutOff
        } else {
            Outcome::ClientGone
        });
        if !self.is_skipped() {
            let mut line = self.access.format.line(self);
            line.push('\n');
            self.access.output.write(line.as_bytes());
        }
    }
}

/// The headers of these names. Of several values of a name the first counts.
fn pick(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let value = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    names.iter().filter_map(value).collect()
}

/// The status of a request whose client left before there was one: what nginx says.
const CLIENT_GONE: u16 = 499;
