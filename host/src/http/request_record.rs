//! The record of a request for the logs. It adds the request's id to log lines, and writes the line of the access log.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Response, StatusCode, request::Parts};
use http_body::Body;
use plugin_api::host::CallError;

use super::header_scan::{HeaderScan, X_REQUEST_ID};
use crate::{
    config::DebugHeader,
    log::{
        access::{AccessLog, AccessRecord, RequestOutcome},
        request::{self, RequestLog, RequestMeta, Trace},
        request_id::RequestId,
    },
    scoreboard::{self, SavedWork, WorkKind},
};

/// Creates the records of requests, according to the log settings.
#[derive(Debug, Default)]
pub struct RequestRecorder {
    /// The header field that makes the log write a request at debug level, if the operator has set one.
    pub debug_header: Option<DebugHeader>,
    /// The access log, if it is on.
    pub access: Option<Arc<AccessLog>>,
}

impl RequestRecorder {
    /// Creates the record of a request from `peer`. The time of the request begins now.
    pub(super) fn begin(
        &self,
        head: &Parts,
        scan: &HeaderScan<'_>,
        peer: SocketAddr,
    ) -> RequestRecord {
        let log = RequestLog::new(RequestMeta {
            id: RequestId::new(scan.request_id),
            trace: scan.traceparent.and_then(Trace::parse),
            force_debug: self
                .debug_header
                .as_ref()
                .is_some_and(|header| header.is_in(&head.headers)),
        });
        let access = self
            .access
            .as_ref()
            .map(|access| access.begin(head, peer, &log));
        RequestRecord {
            is_head: head.method == Method::HEAD,
            plugin: None,
            log: Some(log),
            access,
            saved_work: None,
        }
    }

    /// Writes the access log line of a head that was rejected before it became a request.
    pub fn record_rejected_head(
        &self,
        peer: SocketAddr,
        status: StatusCode,
        outcome: RequestOutcome,
    ) {
        if let Some(access) = &self.access {
            access.record_rejected_head(peer, status, outcome);
        }
    }
}

/// The record of one request. The access log line is written when the record is dropped.
#[derive(Debug)]
pub struct RequestRecord {
    /// Whether the request's method is `HEAD`.
    is_head: bool,
    /// The name of the app that the request has entered. `None` before.
    plugin: Option<&'static str>,
    /// The metadata and the span of the request for the log. `None` while [`scope`](Self::scope) has moved them to a
    /// thread-local.
    log: Option<Arc<RequestLog>>,
    /// The data for the access log line. `None` without an access log.
    access: Option<Box<AccessRecord>>,
    /// A copy of the request's entry on the scoreboard. `None` unless code of the app will run again for the request.
    saved_work: Option<Box<SavedWork>>,
}

impl RequestRecord {
    /// Returns the metadata and the span of the request for the log. Returns `None` within [`scope`](Self::scope).
    #[must_use]
    pub fn log(&self) -> Option<Arc<RequestLog>> {
        self.log.clone()
    }

    /// Returns the id of the request. Returns `None` within [`scope`](Self::scope).
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        Some(self.log.as_ref()?.meta().id.clone())
    }

    /// Runs `work`, and adds the request's id to all log lines that `work` writes.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        request::scope(&mut self.log, work)
    }

    /// Runs `work` as [`scope`](Self::scope) does, and shows the request on the scoreboard meanwhile. Used if `work`
    /// runs code of the app.
    pub(super) fn scope_in_app<T>(&mut self, kind: WorkKind, work: impl FnOnce() -> T) -> T {
        let _working = scoreboard::enter_again(self.saved_work.as_deref(), kind);
        self.scope(work)
    }

    /// Stores a copy of the request's entry on the scoreboard. The copy is needed when code of the app runs again.
    pub(super) fn set_saved_work(&mut self, saved_work: Option<SavedWork>) {
        self.saved_work = saved_work.map(Box::new);
    }

    /// Returns the copy of the request's entry on the scoreboard.
    pub(super) fn saved_work(&self) -> Option<&SavedWork> {
        self.saved_work.as_deref()
    }

    /// Stores the name and the generation of the app that the request has entered.
    pub fn set_app(&mut self, plugin: &'static str, generation: u64) {
        self.plugin = Some(plugin);
        if let Some(access) = &mut self.access {
            access.set_app(plugin, generation);
        }
    }

    /// Returns the name of the app that the request has entered, or `None` if it has entered no app.
    #[must_use]
    pub fn plugin(&self) -> Option<&'static str> {
        self.plugin
    }

    /// Records the head of the response, and adds the request's id to the header fields.
    ///
    /// The outcome of a response without a body is set here, because hyper does not poll such a body.
    pub fn begin_response<B: Body>(&mut self, response: &mut Response<B>) {
        if let Some(log) = &self.log {
            let id = log.meta().id.to_header();
            response.headers_mut().insert(&X_REQUEST_ID, id);
        }
        // After the id was added, because the format of the access log may contain that field.
        if let Some(access) = &mut self.access {
            access.set_response(response);
            let is_bodiless = matches!(
                response.status(),
                StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
            if self.is_head || is_bodiless || response.body().is_end_stream() {
                access.set_outcome(RequestOutcome::Answered);
            }
        }
    }

    /// Adds to the number of body bytes that hyper has got.
    pub fn add_bytes_sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.add_bytes_sent(bytes as u64);
        }
    }

    /// Sets the outcome of the request, unless an outcome was set before.
    pub fn set_outcome(&mut self, outcome: RequestOutcome) {
        if let Some(access) = &mut self.access {
            access.set_outcome(outcome);
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // The access record is dropped first, because it shares the log: only the last reference can recycle the
        // memory.
        self.access = None;
        if let Some(log) = self.log.take() {
            log.recycle();
        }
    }
}

impl From<CallError> for RequestOutcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Panicked => Self::Panicked,
            _ => Self::Failed,
        }
    }
}
