//! What a request leaves in the log: its id on every line, and its line in the access log.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Response, StatusCode, request::Parts};
use http_body::Body;
use plugin_api::host::CallError;

use super::noted::{Noted, X_REQUEST_ID};
use crate::{
    config::DebugHeader,
    log::{
        access::{AccessLog, Exchange, Outcome},
        request::{self, Facts, RequestLog, Trace},
        request_id::RequestId,
    },
    scoreboard::{self, Doing, Note},
};

/// Begins the trails of requests.
#[derive(Debug, Default)]
pub struct Trails {
    /// By which header a request asks to be logged in full.
    pub debug_header: Option<DebugHeader>,
    /// Where each request has a line.
    pub access: Option<Arc<AccessLog>>,
}

impl Trails {
    /// The trail of a request from `peer`.
    pub(super) fn begin(&self, head: &Parts, noted: &Noted<'_>, peer: SocketAddr) -> Trail {
        let log = RequestLog::new(Facts {
            id: RequestId::new(noted.id),
            trace: noted.trace.and_then(Trace::parse),
            loud: self
                .debug_header
                .as_ref()
                .is_some_and(|header| header.is_in(&head.headers)),
        });
        let exchange = self
            .access
            .as_ref()
            .map(|access| access.begin(head, peer, &log));
        Trail {
            is_head: head.method == Method::HEAD,
            plugin: None,
            log: Some(log),
            exchange,
            note: None,
        }
    }

    /// A head that did not become a request.
    pub fn no_request(&self, peer: SocketAddr, status: StatusCode, outcome: Outcome) {
        if let Some(access) = &self.access {
            access.no_request(peer, status, outcome);
        }
    }
}

/// The trail of one request. It ends when it is dropped.
#[derive(Debug)]
pub struct Trail {
    is_head: bool,
    /// The name of the app that the request is in; none before.
    plugin: Option<&'static str>,
    /// Some, but while it is lent to a thread.
    log: Option<Arc<RequestLog>>,
    exchange: Option<Box<Exchange>>,
    /// Some when code of the app's is to run again for the request.
    note: Option<Box<Note>>,
}

impl Trail {
    /// The request, as the log knows it.
    #[must_use]
    pub fn log(&self) -> Option<Arc<RequestLog>> {
        self.log.clone()
    }

    /// What identifies the request.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        Some(self.log.as_ref()?.facts().id.clone())
    }

    /// Runs `work` as the request's: what it logs says so.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        request::scope(&mut self.log, work)
    }

    /// As [`scope`](Self::scope), for code of the app's that goes on with the request.
    pub(super) fn scope_in_app<T>(&mut self, doing: Doing, work: impl FnOnce() -> T) -> T {
        let _working = scoreboard::enter_again(self.note.as_deref(), doing);
        self.scope(work)
    }

    /// Keeps what the thread noted on entering the app, for when the app goes on with the request.
    pub(super) fn keep(&mut self, note: Option<Note>) {
        self.note = note.map(Box::new);
    }

    /// What was kept.
    pub(super) fn note(&self) -> Option<&Note> {
        self.note.as_deref()
    }

    /// It is in a generation of an app.
    pub fn enter(&mut self, plugin: &'static str, generation: u64) {
        self.plugin = Some(plugin);
        if let Some(exchange) = &mut self.exchange {
            exchange.enter(plugin, generation);
        }
    }

    /// The name of the app that the request is in; none before.
    #[must_use]
    pub fn plugin(&self) -> Option<&'static str> {
        self.plugin
    }

    /// Its response begins. The id goes with it.
    pub fn respond<B: Body>(&mut self, response: &mut Response<B>) {
        if let Some(log) = &self.log {
            let id = log.facts().id.to_header();
            response.headers_mut().insert(&X_REQUEST_ID, id);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.respond(response);
            let bodiless = matches!(
                response.status(),
                StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
            if self.is_head || bodiless || response.body().is_end_stream() {
                exchange.end(Outcome::Answered);
            }
        }
    }

    /// A part of its response's body was handed to the connection.
    pub fn send(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.send(bytes as u64);
        }
    }

    /// What came of it; the first word counts.
    pub fn end(&mut self, outcome: Outcome) {
        if let Some(exchange) = &mut self.exchange {
            exchange.end(outcome);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        // The exchange has a hold of it too.
        self.exchange = None;
        if let Some(log) = self.log.take() {
            log.end();
        }
    }
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Panicked => Self::Panicked,
            _ => Self::Failed,
        }
    }
}
