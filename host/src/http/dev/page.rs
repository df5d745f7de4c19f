//! Responses that explain why a request failed. The format is HTML, JSON or text, depending on the client's `accept`.

mod frames;
mod html;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use serde_json::json;

use self::frames::{Excerpt, StackFrame};
use super::accepts;
use crate::{
    dev::state::{SessionPhase, SessionState},
    http::response_body::ResponseBody,
    log::recent,
};

/// A copy of the parts of a request that an explanation shows.
#[derive(Clone, Debug)]
pub(super) struct RequestSummary {
    method: Method,
    uri: Uri,
    version: Version,
    /// The header fields.
    pub(super) headers: HeaderMap,
}

/// An explanation why a request failed, independent of its format.
#[derive(Debug, Default)]
struct Explanation {
    /// The status of the response.
    status: StatusCode,
    /// The title, and after a line break further text.
    message: String,
    /// The file, line and column of the panic.
    place: Option<String>,
    /// The source lines around the place of the panic.
    source: Option<Excerpt>,
    /// The frames of the backtrace that are in the author's sources.
    own_frames: Vec<StackFrame>,
    /// The other frames of the backtrace.
    other_frames: Vec<StackFrame>,
    /// The log lines of the request.
    log: Vec<String>,
    /// The request line and the header fields, as names and values.
    request: Vec<(String, String)>,
}

impl RequestSummary {
    /// Copies the parts of a request.
    pub(super) fn of(head: &Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
        }
    }

    /// Returns the request line and the header fields as names and values. Secrets are masked.
    fn lines(&self) -> Vec<(String, String)> {
        let query = self
            .uri
            .query()
            .map(|query| format!("?{}", masked_query(query)));
        let target = format!("{}{}", self.uri.path(), query.unwrap_or_default());
        let line = (
            self.method.to_string(),
            format!("{target} {:?}", self.version),
        );
        let fields = self.headers.iter().map(|(name, value)| {
            let value = if is_secret(name.as_str()) {
                MASK.to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.to_string(), value)
        });
        [line].into_iter().chain(fields).collect()
    }
}

/// Returns whether a response needs an explanation: true for a response of the host, whose app panicked or does not
/// serve, and for a 500 of an app that is not an HTML page.
pub(super) fn needs_explanation(response: &Response<ResponseBody>) -> bool {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let is_html = content_type.is_some_and(|value| value.starts_with(b"text/html"));
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => response.body().is_of_host(),
        StatusCode::INTERNAL_SERVER_ERROR => response.body().is_of_host() || !is_html,
        _ => false,
    }
}

/// Replaces a response by its explanation, unless the client may need the app's own response.
pub(super) fn explain(
    response: &mut Response<ResponseBody>,
    request: &RequestSummary,
    state: Option<&SessionState>,
) {
    let accepts_html = accepts(&request.headers, "text/html");
    // The client of an API may need the response of the app.
    if !response.body().is_of_host() && !accepts_html {
        return;
    }
    let request_type = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    // gRPC sends its status in trailers. A gRPC client that gets a text would report a wrong error.
    if request_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return;
    }
    let explanation = Explanation::of(response, request, state);
    let status = explanation.status;
    let (content_type, body) = if accepts_html {
        ("text/html; charset=utf-8", html::page(&explanation))
    } else if accepts(&request.headers, "json") {
        ("application/json", explanation.json())
    } else {
        ("text/plain; charset=utf-8", explanation.text())
    };
    *response.status_mut() = status;
    // The header fields of the replaced response describe another body. Only the id of the request stays.
    let id = response.headers().get("x-request-id").cloned();
    let headers = response.headers_mut();
    headers.clear();
    headers.extend(id.map(|id| (HeaderName::from_static("x-request-id"), id)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if request.method != Method::HEAD {
        response.body_mut().replace_content(body);
    }
}

impl Explanation {
    /// Creates the explanation of a response, from the recent log lines and panics.
    fn of(
        response: &Response<ResponseBody>,
        request: &RequestSummary,
        state: Option<&SessionState>,
    ) -> Self {
        let id = response
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let (log, panic) = id.map(recent::of_request).unwrap_or_default();
        let mut explanation = Self {
            status: response.status(),
            log,
            request: request.lines(),
            ..Self::default()
        };
        match response.status() {
            StatusCode::INTERNAL_SERVER_ERROR => explanation.set_failure(panic, state),
            _ => explanation.set_unavailable(request, state),
        }
        explanation
    }

    /// Explains a 500. Shows the panic of the request, if it had one.
    fn set_failure(&mut self, panic: Option<recent::Panic>, state: Option<&SessionState>) {
        let Some(panic) = panic else {
            "The app answered with an error".clone_into(&mut self.message);
            return;
        };
        let default = crate::dev::state::SessionOptions::default();
        let options = state.map_or(&default, |state| &state.options);
        self.message = format!("panicked: {}", panic.message);
        if let Some((file, line, column)) = panic.location {
            self.source = Excerpt::read(&file, line, options);
            self.place = Some(format!("{file}:{line}:{column}"));
        }
        let frames = panic
            .backtrace
            .as_deref()
            .map(frames::parse)
            .unwrap_or_default();
        (self.own_frames, self.other_frames) =
            frames.into_iter().partition(|frame| frame.is_own(options));
    }

    /// Explains why no app serves the path.
    fn set_unavailable(&mut self, request: &RequestSummary, state: Option<&SessionState>) {
        let Some(state) = state else {
            "The session has not begun".clone_into(&mut self.message);
            return;
        };
        let report = crate::dev::strip_colours(&state.report);
        // If apps serve, the path of the request has no app, and the explanation lists the mounts.
        self.message = match (state.phase, state.progress) {
            (SessionPhase::Building, _) if state.apps.is_empty() => {
                self.status = StatusCode::SERVICE_UNAVAILABLE;
                let progress = state.progress;
                let progress = progress
                    .map(|progress| format!(": {} of {} crates", progress.done, progress.total));
                format!(
                    "The first build is under way{}",
                    progress.unwrap_or_default()
                )
            }
            (SessionPhase::BuildFailed, _) if state.apps.is_empty() => {
                self.status = StatusCode::SERVICE_UNAVAILABLE;
                format!("The build failed, and nothing serves yet\n\n{report}")
            }
            (SessionPhase::StartFailed, _) => {
                self.status = StatusCode::SERVICE_UNAVAILABLE;
                format!("The app did not start\n\n{report}")
            }
            _ => {
                let apps = state.apps.iter().flat_map(|(name, mounts)| {
                    mounts.iter().map(move |mount| format!("\n{mount}  {name}"))
                });
                let apps: String = apps.collect();
                format!(
                    "Nothing is served at {}. There is:\n{apps}",
                    request.uri.path()
                )
            }
        };
    }

    /// Returns the explanation as JSON, for programs.
    fn json(&self) -> String {
        let frames =
            |frames: &[StackFrame]| frames.iter().map(StackFrame::to_string).collect::<Vec<_>>();
        let json = json!({
            "status": self.status.as_u16(), "error": self.message, "place": self.place,
            "frames": frames(&self.own_frames), "other_frames": frames(&self.other_frames),
            "log": self.log,
        });
        format!("{json}\n")
    }

    /// Returns the explanation as text, for a terminal.
    fn text(&self) -> String {
        let mut text = format!("{}\n\n{}\n", self.status, self.message);
        if let Some(place) = &self.place {
            text += &format!("at {place}\n");
        }
        if let Some(source) = &self.source {
            text += &format!("\n{source}");
        }
        for (title, lines) in [
            (
                "Backtrace",
                self.own_frames.iter().map(StackFrame::to_string).collect(),
            ),
            ("Log", self.log.clone()),
        ] {
            if !lines.is_empty() {
                text += &format!("\n{title}:\n{}\n", lines.join("\n"));
            }
        }
        text
    }
}

/// Returns whether a header field or a query parameter with this name may contain a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "auth", "cookie", "csrf", "key", "passw", "secret", "session", "token",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Returns a query with its secret values masked.
fn masked_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The text that is shown in place of a secret.
const MASK: &str = "•••";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        let request = Request::get("/pay?sum=3&api_key=abc")
            .header("authorization", "Basic abc")
            .header("x-csrf", "abc")
            .header("accept", "text/html");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let shown = RequestSummary::of(&head).lines();
        let text = format!("{shown:?}");
        assert!(!text.contains("abc"), "{text}");
        assert!(
            text.contains("/pay?sum=3&api_key=•••") && text.contains("text/html"),
            "{text}"
        );
    }
}
