//! The format of the lines of the access log: a text with Gunicorn's atoms such as `%(h)s`, or JSON.

mod atoms;
mod json;

use std::{fmt::Write, str::FromStr, sync::Arc};

use http::{
    HeaderName,
    header::{AUTHORIZATION, REFERER, USER_AGENT},
};

use self::json::JsonLine;
use super::AccessRecord;

/// The format of the lines of an access log. Clones share the same data.
#[derive(Clone, Debug)]
pub struct AccessFormat(Arc<FormatInner>);

#[derive(Debug)]
struct FormatInner {
    /// The texts and atoms of a line, in order. `None` for JSON.
    parts: Option<Vec<FormatPart>>,
    /// The header fields of requests that a line needs.
    request_headers: Vec<HeaderName>,
    /// The header fields of responses that a line needs.
    response_headers: Vec<HeaderName>,
}

/// A part of a format.
#[derive(Clone, Debug)]
enum FormatPart {
    /// A text that is written unchanged.
    Text(String),
    /// A variable. The line contains its value.
    Atom(Atom),
}

/// A variable in a format. Gunicorn calls such a variable an atom. [`Atom::parse`] has the name of each atom.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    /// The IP address of the client.
    Remote,
    /// Always a dash. The common log format has the remote log name (RFC 1413) at this position, and HTTP has no such
    /// name.
    Dash,
    /// The user name of basic authentication.
    User,
    /// When the request began.
    Time,
    /// Method, target and protocol.
    Request,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    /// The number of bytes of the response's body that were sent.
    Bytes,
    /// The same number, but a dash for 0.
    BytesOrDash,
    /// The duration of the request. The next three atoms are the same duration in other units.
    Seconds,
    Milliseconds,
    Microseconds,
    /// Seconds with six decimals.
    DecimalSeconds,
    /// The id of this process.
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
    /// Returns whether lines are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.0.parts.is_none()
    }

    /// Returns the names of the request headers that a line needs.
    #[must_use]
    pub fn request_headers(&self) -> &[HeaderName] {
        &self.0.request_headers
    }

    /// Returns the names of the response headers that a line needs.
    #[must_use]
    pub fn response_headers(&self) -> &[HeaderName] {
        &self.0.response_headers
    }

    /// Returns the line of a request, without a line end.
    pub(super) fn line(&self, record: &AccessRecord) -> String {
        let mut line = String::new();
        let written = match &self.0.parts {
            None => write!(line, "{}", JsonLine(record)),
            Some(parts) => parts.iter().try_for_each(|part| match part {
                FormatPart::Text(text) => line.write_str(text),
                FormatPart::Atom(atom) => record.write(atom, &mut line),
            }),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        line
    }

    /// Returns the format with these parts, or the JSON format if `parts` is `None`.
    fn new(parts: Option<Vec<FormatPart>>) -> Self {
        // The header fields of a JSON line.
        let mut request_headers = vec![AUTHORIZATION, REFERER, USER_AGENT];
        let mut response_headers = Vec::new();
        if let Some(parts) = &parts {
            request_headers.clear();
            for part in parts {
                match part {
                    FormatPart::Atom(Atom::User) => request_headers.push(AUTHORIZATION),
                    FormatPart::Atom(Atom::RequestHeader(name)) => {
                        request_headers.push(name.clone())
                    }
                    FormatPart::Atom(Atom::ResponseHeader(name)) => {
                        response_headers.push(name.clone())
                    }
                    FormatPart::Atom(_) | FormatPart::Text(_) => {}
                }
            }
        }
        Self(Arc::new(FormatInner {
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
            "json" => Ok(Self::new(None)),
            "common" => parse(&format!("{COMMON}{OWN_ATOMS}")),
            "combined" => parse(&format!("{COMMON} \"%(f)s\" \"%(a)s\"{OWN_ATOMS}")),
            text if text.contains('%') => parse(text),
            _ => Err(FormatError::Name(text.to_owned())),
        }
    }
}

/// The common log format of the NCSA server, as atoms.
const COMMON: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s"#;

/// The atoms that this server appends to the formats `common` and `combined`.
const OWN_ATOMS: &str = " %({plugin}e)s#%({generation}e)s %({request_id}e)s %({outcome}e)s %(D)s";

/// Parses a format that consists of texts and atoms.
fn parse(text: &str) -> Result<AccessFormat, FormatError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        parts.push(FormatPart::Text(before.to_owned()));
        if let Some(after) = after.strip_prefix('%') {
            parts.push(FormatPart::Text("%".to_owned()));
            rest = after;
            continue;
        }
        let name_and_rest = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(")s"));
        let (name, after) =
            name_and_rest.ok_or_else(|| FormatError::Syntax(format!("%{after}")))?;
        let atom = Atom::parse(name).ok_or_else(|| FormatError::Atom(name.to_owned()))?;
        parts.push(FormatPart::Atom(atom));
        rest = after;
    }
    parts.push(FormatPart::Text(rest.to_owned()));
    Ok(AccessFormat::new(Some(parts)))
}

/// Why a text is not a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// No atom has this name.
    #[error(
        "%({})s is not an atom, expected one of h l u t r m U q H s B b f a T M D L p, {{HEADER}}i, {{HEADER}}o or {{VARIABLE}}e (see docs/REFERENCE.md)",
        .0.escape_debug()
    )]
    Atom(String),
    /// No format has this name.
    #[error("{0:?} is not a format, expected common, combined, json, or atoms such as %(h)s")]
    Name(String),
    /// A percent sign does not begin an atom.
    #[error("{0:?} is not an atom, expected %(NAME)s, or %% for a percent sign")]
    Syntax(String),
}

impl Atom {
    /// Returns the atom with this name, or `None` if no atom has the name. `name` is the text between `%(` and `)s`.
    fn parse(name: &str) -> Option<Self> {
        // The atoms `{HEADER}i` and `{HEADER}o` are header fields of the request (in) and of the response (out).
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

    /// Returns the atom `{NAME}e`, or `None` if no such variable exists. In Gunicorn, `{NAME}e` is a variable of the
    /// WSGI environment. This server supports some of the WSGI variables, and has variables of its own.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Random, one_line};

    #[test]
    fn a_format_is_the_text_that_it_was_made_of_or_an_error_of_one_line() {
        let mut random = Random::new(6);
        let samples = [
            "json",
            "combined",
            "%(h)s %% %(t)s \"%(r)s\" %({x-one}i)s",
            "%({x-two}o)s%({plugin}e)s %(D)s",
        ];
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..20_000 {
            let text = random.text(&samples);
            match text.parse::<AccessFormat>() {
                Ok(format) => {
                    accepted += 1;
                    assert_eq!(format.is_json(), text == "json");
                    let parts = format.0.parts.as_deref().unwrap_or_default();
                    let literals = parts.iter().map(|part| match part {
                        FormatPart::Text(text) => text.len(),
                        FormatPart::Atom(_) => 0,
                    });
                    let headers = format.request_headers().len() + format.response_headers().len();
                    if text.contains('%') {
                        assert!(literals.sum::<usize>() <= text.len(), "{text:?}");
                        assert!(headers <= text.matches("%(").count(), "{text:?}");
                    }
                }
                Err(error) => {
                    rejected += 1;
                    one_line(error, &text);
                }
            }
        }
        assert!(
            accepted > 1_000 && rejected > 1_000,
            "{accepted} {rejected}"
        );
    }
}
