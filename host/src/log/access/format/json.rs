//! Writes a line of the access log as a JSON object. `docs/REFERENCE.md` describes the schema.

use std::fmt;

use http::header::{REFERER, USER_AGENT};
use serde::Serialize;

use super::AccessRecord;
use crate::log::worker;

/// Displays a record as one JSON object.
pub(super) struct JsonLine<'a>(pub(super) &'a AccessRecord);

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let (trace_id, span_id) = record.trace().unzip();
        let object = Object {
            timestamp: humantime::format_rfc3339_micros(record.time).to_string(),
            remote: record.peer.ip().to_string(),
            user: record.user(),
            method: record.method(),
            path: record.path(),
            query: record.query(),
            protocol: record.protocol(),
            status: record.status,
            bytes: record.bytes_sent,
            duration_us: record
                .started
                .elapsed()
                .as_micros()
                .try_into()
                .unwrap_or(u64::MAX),
            referer: record.header_text(&REFERER),
            user_agent: record.header_text(&USER_AGENT),
            plugin: record.app.map(|(plugin, _)| plugin),
            generation: record.app.map(|(_, generation)| generation),
            worker: worker::number(),
            request_id: record.request_id(),
            trace_id,
            span_id,
            outcome: record.outcome.map(|outcome| outcome.as_str()),
        };
        let text = serde_json::to_string(&object).map_err(|_| fmt::Error)?;
        formatter.write_str(&text)
    }
}

/// The object of a line. The keys are written in the order of the fields.
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
