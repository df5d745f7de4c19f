//! How lines of the access log look: Gunicorn's atoms, or JSON.

use std::{
    fmt::{self, Write},
    process,
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{
    HeaderName, HeaderValue, Version,
    header::{AUTHORIZATION, REFERER, USER_AGENT},
};
use serde::Serialize;

use super::Exchange;

/// A format for lines, which knows what it needs of a request.
#[derive(Clone, Debug)]
pub struct AccessFormat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None for JSON.
    parts: Option<Vec<Part>>,
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Atom(Atom),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Remote,
    Dash,
    User,
    Time,
    Request,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    BytesOrDash,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Process,
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    Plugin,
    Generation,
    RequestId,
    TraceId,
    SpanId,
    Outcome,
    RemotePort,
}

impl AccessFormat {
    /// The headers that it needs of requests.
    #[must_use]
    pub fn request_headers(&self) -> &[HeaderName] {
        &self.0.request_headers
    }

    /// The headers that it needs of responses.
    #[must_use]
    pub fn response_headers(&self) -> &[HeaderName] {
        &self.0.response_headers
    }

    /// The line for a request that is over, without its end.
    pub(super) fn line(&self, exchange: &Exchange) -> String {
        let mut line = String::new();
        let written = match &self.0.parts {
            None => write!(line, "{}", Json(exchange)),
            Some(parts) => parts.iter().try_for_each(|part| match part {
                Part::Text(text) => line.write_str(text),
                Part::Atom(atom) => exchange.write(atom, &mut line),
            }),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        line
    }

    fn of(parts: Option<Vec<Part>>) -> Self {
        let mut request_headers = vec![AUTHORIZATION, REFERER, USER_AGENT];
        let mut response_headers = Vec::new();
        if let Some(parts) = &parts {
            request_headers.clear();
            for part in parts {
                match part {
                    Part::Atom(Atom::User) => request_headers.push(AUTHORIZATION),
                    Part::Atom(Atom::RequestHeader(name)) => request_headers.push(name.clone()),
                    Part::Atom(Atom::ResponseHeader(name)) => response_headers.push(name.clone()),
                    Part::Atom(_) | Part::Text(_) => {}
                }
            }
        }
        Self(Arc::new(Inner {
            parts,
            request_headers,
            response_headers,
        }))
    }
}

impl FromStr for AccessFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "json" => Ok(Self::of(None)),
            "common" => parse(&format!("{COMMON}{OURS}")),
            "combined" => parse(&format!("{COMMON} \"%(f)s\" \"%(a)s\"{OURS}")),
            text if text.contains('%') => parse(text),
            _ => Err(FormatError::Name(text.to_owned())),
        }
    }
}

/// NCSA's common log format.
const COMMON: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s"#;

/// What stands behind it.
const OURS: &str = " %({plugin}e)s#%({generation}e)s %({request_id}e)s %({outcome}e)s %(D)s";

fn parse(text: &str) -> Result<AccessFormat, FormatError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        parts.push(Part::Text(before.to_owned()));
        if let Some(after) = after.strip_prefix('%') {
            parts.push(Part::Text("%".to_owned()));
            rest = after;
            continue;
        }
        let atom = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(")s"));
        let (name, after) = atom.ok_or_else(|| FormatError::Syntax(format!("%{after}")))?;
        let atom = Atom::of(name).ok_or_else(|| FormatError::Atom(name.to_owned()))?;
        parts.push(Part::Atom(atom));
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(AccessFormat::of(Some(parts)))
}

/// A format that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no such atom.
    #[error(
        "%({0})s is not an atom, expected one of h l u t r m U q H s B b f a T M D L p, {{HEADER}}i, {{HEADER}}o or {{VARIABLE}}e (see docs/LOGGING.md)"
    )]
    Atom(String),
    /// There is no such format.
    #[error("{0:?} is not a format, expected common, combined, json, or atoms such as %(h)s")]
    Name(String),
    /// A percent sign that begins no atom.
    #[error("{0:?} is not an atom, expected %(NAME)s, or %% for a percent sign")]
    Syntax(String),
}

impl Atom {
    fn of(name: &str) -> Option<Self> {
        if let Some((name, kind)) = name
            .strip_prefix('{')
            .and_then(|name| name.rsplit_once('}'))
        {
            return match kind {
                "i" => Some(Self::RequestHeader(name.parse().ok()?)),
                "o" => Some(Self::ResponseHeader(name.parse().ok()?)),
                "e" => Self::variable(name),
                _ => None,
            };
        }
        Some(match name {
            "h" => Self::Remote,
            "l" => Self::Dash,
            "u" => Self::User,
            "t" => Self::Time,
            "r" => Self::Request,
            "m" => Self::Method,
            "U" => Self::Path,
            "q" => Self::Query,
            "H" => Self::Protocol,
            "s" => Self::Status,
            "B" => Self::Bytes,
            "b" => Self::BytesOrDash,
            "f" => Self::RequestHeader(REFERER),
            "a" => Self::RequestHeader(USER_AGENT),
            "T" => Self::Seconds,
            "M" => Self::Milliseconds,
            "D" => Self::Microseconds,
            "L" => Self::DecimalSeconds,
            "p" => Self::Process,
            _ => return None,
        })
    }

    /// In Gunicorn a variable of the WSGI environment; here those of them that there are, and what
    /// only this server knows.
    fn variable(name: &str) -> Option<Self> {
        Some(match name {
            "plugin" => Self::Plugin,
            "generation" => Self::Generation,
            "request_id" => Self::RequestId,
            "trace_id" => Self::TraceId,
            "span_id" => Self::SpanId,
            "outcome" => Self::Outcome,
            "REMOTE_ADDR" => Self::Remote,
            "REMOTE_PORT" => Self::RemotePort,
            "REQUEST_METHOD" => Self::Method,
            "PATH_INFO" => Self::Path,
            "QUERY_STRING" => Self::Query,
            "SERVER_PROTOCOL" => Self::Protocol,
            _ => return None,
        })
    }
}

impl Exchange {
    fn write(&self, atom: &Atom, line: &mut String) -> fmt::Result {
        let took = self.began.elapsed();
        match atom {
            Atom::Remote => write!(line, "{}", self.peer.ip()),
            Atom::RemotePort => write!(line, "{}", self.peer.port()),
            Atom::Dash => line.write_char('-'),
            Atom::User => write_text(line, self.user().as_deref().map(str::as_bytes)),
            Atom::Time => write_time(line, self.at),
            Atom::Request => match &self.head {
                Some(head) => {
                    write!(line, "{} ", head.method)?;
                    write_escaped(line, head.uri.to_string().as_bytes())?;
                    write!(line, " {}", protocol(head.version))
                }
                None => line.write_char('-'),
            },
            Atom::Method => write_text(line, self.method().map(str::as_bytes)),
            Atom::Path => write_text(line, self.path().map(str::as_bytes)),
            Atom::Query => write_escaped(line, self.query().unwrap_or_default().as_bytes()),
            Atom::Protocol => write_text(line, self.protocol().map(str::as_bytes)),
            Atom::Status => write!(line, "{}", self.status),
            Atom::BytesOrDash if self.sent == 0 => line.write_char('-'),
            Atom::Bytes | Atom::BytesOrDash => write!(line, "{}", self.sent),
            Atom::Seconds => write!(line, "{}", took.as_secs()),
            Atom::Milliseconds => write!(line, "{}", took.as_millis()),
            Atom::Microseconds => write!(line, "{}", took.as_micros()),
            Atom::DecimalSeconds => write!(line, "{:.6}", took.as_secs_f64()),
            Atom::Process => write!(line, "<{}>", process::id()),
            Atom::RequestHeader(name) => {
                write_text(line, self.header(name).map(HeaderValue::as_bytes))
            }
            Atom::ResponseHeader(name) => {
                let value = find(&self.headers, name);
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

    fn method(&self) -> Option<&str> {
        self.head.as_ref().map(|head| head.method.as_str())
    }

    fn path(&self) -> Option<&str> {
        self.head.as_ref().map(|head| head.uri.path())
    }

    fn query(&self) -> Option<&str> {
        self.head.as_ref().and_then(|head| head.uri.query())
    }

    fn protocol(&self) -> Option<&'static str> {
        self.head.as_ref().map(|head| protocol(head.version))
    }

    fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        find(&self.head.as_ref()?.headers, name)
    }

    fn text_of(&self, name: &HeaderName) -> Option<String> {
        let value = self.header(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The user name of basic authentication (RFC 7617), which the app may or may not accept.
    fn user(&self) -> Option<String> {
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

    fn request_id(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.facts().id.as_str())
    }

    fn trace(&self) -> Option<(&str, &str)> {
        let trace = self.log.as_ref()?.facts().trace.as_ref()?;
        Some((trace.trace_id(), trace.span_id()))
    }
}

fn find<'a>(
    headers: &'a [(HeaderName, HeaderValue)],
    name: &HeaderName,
) -> Option<&'a HeaderValue> {
    let (_, value) = headers.iter().find(|(other, _)| other == name)?;
    Some(value)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Text of a client's or an app's, or a dash.
fn write_text(line: &mut String, text: Option<&[u8]>) -> fmt::Result {
    match text {
        None | Some([]) => line.write_char('-'),
        Some(text) => write_escaped(line, text),
    }
}

/// Nothing in it can end the line or a quoted part of it: what is not visible ASCII is `\xHH`.
fn write_escaped(line: &mut String, text: &[u8]) -> fmt::Result {
    text.iter().try_for_each(|&byte| match byte {
        b'"' | b'\\' => write!(line, "\\{}", char::from(byte)),
        b' '..=b'~' => line.write_char(char::from(byte)),
        _ => write!(line, "\\x{byte:02x}"),
    })
}

/// `[23/Nov/2026:08:17:21 +0000]`.
fn write_time(line: &mut String, time: SystemTime) -> fmt::Result {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let [year, month, day, clock] = [0..4, 5..7, 8..10, 11..19].map(|at| &text[at]);
    let month = month
        .parse()
        .ok()
        .and_then(|month: usize| MONTHS.get(month - 1))
        .unwrap_or(&"-");
    write!(line, "[{day}/{month}/{year}:{clock} +0000]")
}

/// An exchange as JSON.
struct Json<'a>(&'a Exchange);

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
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    span_id: Option<&'a str>,
    outcome: Option<&'a str>,
}
