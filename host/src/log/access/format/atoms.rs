//! Writes the values of the atoms of a line.

use std::{
    fmt::{self, Write},
    process,
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, Version, header::AUTHORIZATION};

use super::{super::RequestHead, AccessRecord, Atom};

impl AccessRecord {
    /// Appends the value of an atom to `line`, or a dash if the record has no value for the atom.
    ///
    /// # Errors
    ///
    /// Never fails, because writing to a string does not fail.
    pub(super) fn write(&self, atom: &Atom, line: &mut String) -> fmt::Result {
        // The duration of the whole request, because the line is written at the end of the request.
        let duration = self.started.elapsed();
        match atom {
            Atom::Remote => write!(line, "{}", self.peer.ip()),
            Atom::RemotePort => write!(line, "{}", self.peer.port()),
            Atom::Dash => line.write_char('-'),
            Atom::User => write_text(line, self.user().as_deref().map(str::as_bytes)),
            Atom::Time => write_time(line, self.time),
            Atom::Request => match &self.head {
                Some(head) => {
                    write!(line, "{} ", head.method)?;
                    write_escaped(line, target(head).as_bytes())?;
                    write!(line, " {}", protocol(head.version))
                }
                None => line.write_char('-'),
            },
            Atom::Method => write_text(line, self.method().map(str::as_bytes)),
            Atom::Path => write_text(line, self.path().map(str::as_bytes)),
            Atom::Query => write_escaped(line, self.query().unwrap_or_default().as_bytes()),
            Atom::Protocol => write_text(line, self.protocol().map(str::as_bytes)),
            Atom::Status => write!(line, "{}", self.status),
            Atom::BytesOrDash if self.bytes_sent == 0 => line.write_char('-'),
            Atom::Bytes | Atom::BytesOrDash => write!(line, "{}", self.bytes_sent),
            Atom::Seconds => write!(line, "{}", duration.as_secs()),
            Atom::Milliseconds => write!(line, "{}", duration.as_millis()),
            Atom::Microseconds => write!(line, "{}", duration.as_micros()),
            Atom::DecimalSeconds => write!(line, "{:.6}", duration.as_secs_f64()),
            Atom::Process => write!(line, "<{}>", process::id()),
            Atom::RequestHeader(name) => {
                write_text(line, self.header(name).map(HeaderValue::as_bytes))
            }
            Atom::ResponseHeader(name) => {
                let value = find_header(&self.headers, name);
                write_text(line, value.map(HeaderValue::as_bytes))
            }
            Atom::Plugin => line.write_str(self.app.map_or("-", |(plugin, _)| plugin)),
            Atom::Generation => match self.app {
                Some((_, generation)) => write!(line, "{generation}"),
                None => line.write_char('-'),
            },
            Atom::RequestId => write_text(line, self.request_id().map(str::as_bytes)),
            Atom::TraceId => line.write_str(self.trace().map_or("-", |(trace, _)| trace)),
            Atom::SpanId => line.write_str(self.trace().map_or("-", |(_, span)| span)),
            Atom::Outcome => line.write_str(self.outcome.map_or("-", |outcome| outcome.as_str())),
        }
    }

    pub(super) fn method(&self) -> Option<&str> {
        self.head.as_ref().map(|head| head.method.as_str())
    }

    pub(super) fn path(&self) -> Option<&str> {
        self.head.as_ref().map(|head| head.uri.path())
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.head.as_ref().and_then(|head| head.uri.query())
    }

    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.head.as_ref().map(|head| protocol(head.version))
    }

    /// Returns the value of a request header. Returns `None` if the request has no such header.
    fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        find_header(&self.head.as_ref()?.headers, name)
    }

    /// Returns the value of a request header as text. Invalid UTF-8 is replaced.
    pub(super) fn header_text(&self, name: &HeaderName) -> Option<String> {
        let value = self.header(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// Returns the user name of basic authentication (RFC 7617). The app may have rejected the user. Returns `None` if
    /// the header is missing or malformed, or the name is empty.
    pub(super) fn user(&self) -> Option<String> {
        let value = self.header(&AUTHORIZATION)?.to_str().ok()?;
        let (scheme, credentials) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let credentials = BASE64_STANDARD.decode(credentials.trim()).ok()?;
        let credentials = String::from_utf8(credentials).ok()?;
        let (user, _) = credentials.split_once(':')?;
        (!user.is_empty()).then(|| user.to_owned())
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.meta().id.as_str())
    }

    /// Returns the id of the trace and the id of the caller's span. Returns `None` if the request belongs to no trace.
    pub(super) fn trace(&self) -> Option<(&str, &str)> {
        let trace = self.log.as_ref()?.meta().trace.as_ref()?;
        Some((trace.trace_id(), trace.span_id()))
    }
}

/// Returns the target of a request. In HTTP/2 the URI also contains scheme and host (RFC 9113, section
/// 8.3.1), which HTTP/1.1 sends in a header. The result has neither of them, so that lines look the same for both
/// protocols.
fn target(head: &RequestHead) -> String {
    match head.uri.path_and_query() {
        Some(path) if head.version == Version::HTTP_2 => path.to_string(),
        _ => head.uri.to_string(),
    }
}

/// Returns the value of the header field with this name.
fn find_header<'a>(
    headers: &'a [(HeaderName, HeaderValue)],
    name: &HeaderName,
) -> Option<&'a HeaderValue> {
    let (_, value) = headers.iter().find(|(other, _)| other == name)?;
    Some(value)
}

/// Returns the name of a protocol version in the line.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Appends text that comes from a client or an app, with escapes. Appends a dash if the text is empty or `None`.
fn write_text(line: &mut String, text: Option<&[u8]>) -> fmt::Result {
    match text {
        None | Some([]) => line.write_char('-'),
        Some(text) => write_escaped(line, text),
    }
}

/// Appends text with escapes, so that the text can end neither the line nor a quoted part of the line. A byte that is
/// not printable ASCII is written as `\xHH`.
fn write_escaped(line: &mut String, text: &[u8]) -> fmt::Result {
    text.iter().try_for_each(|&byte| match byte {
        b'"' | b'\\' => write!(line, "\\{}", char::from(byte)),
        b' '..=b'~' => line.write_char(char::from(byte)),
        _ => write!(line, "\\x{byte:02x}"),
    })
}

/// Appends a time in the form `[23/Nov/2026:08:17:21 +0000]`.
fn write_time(line: &mut String, time: SystemTime) -> fmt::Result {
    // A date of HTTP has the same parts in another order: `Mon, 23 Nov 2026 08:17:21 GMT`.
    let date = httpdate::fmt_http_date(time);
    let [day, month, year, clock] = [5..7, 8..11, 12..16, 17..25].map(|part| &date[part]);
    write!(line, "[{day}/{month}/{year}:{clock} +0000]")
}
