//! The record of a request in the logs: its id on every line of the log, and its line in the access log.

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
    scoreboard::{self, WorkKind, WorkNote},
};

/// Begins the records of requests, as the operator has set up the logs.
#[derive(Debug, Default)]
pub struct RequestRecorder {
    /// The header by which a request asks to be logged at debug.
    pub debug_header: Option<DebugHeader>,
    /// The access log.
    pub access: Option<Arc<AccessLog>>,
}

impl RequestRecorder {
    /// Begins the record of a request from `peer`.
    pub(super) fn begin(
        &self,
        head: &Parts,
        scan: &HeaderScan<'_>,
        peer: SocketAddr,
    ) -> RequestRecord {
        let log = RequestLog::new(RequestMeta {
            id: RequestId::new(scan.id),
            trace: scan.trace.and_then(Trace::parse),
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
            note: None,
        }
    }

    /// Writes the access log line of a head that did not become a request.
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
    /// The name of the app that the request has entered.
    plugin: Option<&'static str>,
    /// The log's view of the request. None while [`scope`](Self::scope) lends it to the
    /// thread.
    log: Option<Arc<RequestLog>>,
    /// The access log line so far. None without an access log.
    access: Option<Box<AccessRecord>>,
    /// The request's entry for the scoreboard, if code of the app will run for it again.
    note: Option<Box<WorkNote>>,
}

impl RequestRecord {
    /// Returns the log's view of the request. None while the log is lent to a thread.
    #[must_use]
    pub fn log(&self) -> Option<Arc<RequestLog>> {
        self.log.clone()
    }

    /// Returns the id of the request. None while the log is lent to a thread.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        Some(self.log.as_ref()?.meta().id.clone())
    }

    /// Runs `work`, whose log lines belong to the request.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        request::scope(&mut self.log, work)
    }

    /// Runs `work` as [`scope`](Self::scope) does, when `work` calls code of the app. The scoreboard shows
    /// the request meanwhile.
    pub(super) fn scope_in_app<T>(&mut self, doing: WorkKind, work: impl FnOnce() -> T) -> T {
        let _working = scoreboard::enter_again(self.note.as_deref(), doing);
        self.scope(work)
    }

    /// Keeps the request's entry for the scoreboard, for when code of the app runs again for it.
    pub(super) fn keep_note(&mut self, note: Option<WorkNote>) {
        self.note = note.map(Box::new);
    }

    /// Returns the request's entry for the scoreboard.
    pub(super) fn note(&self) -> Option<&WorkNote> {
        self.note.as_deref()
    }

    /// Stores which app the request has entered.
    pub fn set_app(&mut self, plugin: &'static str, generation: u64) {
        self.plugin = Some(plugin);
        if let Some(access) = &mut self.access {
            access.set_app(plugin, generation);
        }
    }

    /// Returns the name of the app that the request has entered.
    #[must_use]
    pub fn plugin(&self) -> Option<&'static str> {
        self.plugin
    }

    /// Records the head of the response, and adds the request's id to it.
    ///
    /// A response without a body is complete with its head, because hyper does not poll a body for it.
    pub fn begin_response<B: Body>(&mut self, response: &mut Response<B>) {
        if let Some(log) = &self.log {
            let id = log.meta().id.to_header();
            response.headers_mut().insert(&X_REQUEST_ID, id);
        }
        // After the id was added, because a format may ask for that field.
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

    /// Adds bytes of the response's body that were handed to the connection.
    pub fn add_bytes_sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.add_bytes_sent(bytes as u64);
        }
    }

    /// Sets the outcome of the request, unless it was set before.
    pub fn set_outcome(&mut self, outcome: RequestOutcome) {
        if let Some(access) = &mut self.access {
            access.set_outcome(outcome);
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // The access record shares the log: it goes first, so that the memory of the log can be reused.
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
