//! An exchange as JSON.

use std::fmt;

use http::header::{REFERER, USER_AGENT};
use serde::Serialize;

use super::Exchange;
use crate::log::worker;

/// Its line: one object.
pub(super) struct Json<'a>(pub(super) &'a Exchange);

impl fmt::Display for Json<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exchange = self.0;
        let (trace_id, span_id) = exchange.trace().unzip();
        let object = Object {
            timestamp: humantime::format_rfc3339_micros(exchange.at).to_string(),
            remote: exchange.peer.ip().to_string(),
            user: exchange.user(),
            method: exchange.method(),
            path: exchange.path(),
            query: exchange.query(),
            protocol: exchange.protocol(),
            status: exchange.status,
            bytes: exchange.sent,
            duration_us: exchange
                .began
                .elapsed()
                .as_micros()
                .try_into()
                .unwrap_or(u64::MAX),
            referer: exchange.text_of(&REFERER),
            user_agent: exchange.text_of(&USER_AGENT),
            plugin: exchange.app.map(|(plugin, _)| plugin),
            generation: exchange.app.map(|(_, generation)| generation),
            worker: worker::number(),
            request_id: exchange.request_id(),
            trace_id,
            span_id,
            outcome: exchange.outcome.map(|outcome| outcome.as_str()),
        };
        let text = serde_json::to_string(&object).map_err(|_| fmt::Error)?;
        formatter.write_str(&text)
    }
}

#[derive(Serialize)]
struct Object<'a> {
    timestamp: String,
    remote: String,
    user: Option<String>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<&'a str>,
    protocol: Option<&'a str>,
    status: u16,
    bytes: u64,
    duration_us: u64,
    referer: Option<String>,
    user_agent: Option<String>,
    plugin: Option<&'a str>,
    generation: Option<u64>,
    worker: Option<u64>,
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    span_id: Option<&'a str>,
    outcome: Option<&'a str>,
}
