//! Answers that say why a request failed, as a page, as JSON or as text. The client's `accept` decides.

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

/// The parts of a request that an explanation shows.
#[derive(Clone, Debug)]
pub(super) struct ShownRequest {
    method: Method,
    uri: Uri,
    version: Version,
    /// The header fields.
    pub(super) headers: HeaderMap,
}

/// The parts of an explanation.
#[derive(Debug, Default)]
struct Explanation {
    status: StatusCode,
    message: String,
    /// File, line and column of the panic.
    place: Option<String>,
    /// The source lines around that place.
    source: Option<Excerpt>,
    /// Frames of the backtrace in the author's sources.
    own_frames: Vec<StackFrame>,
    /// All other frames.
    other_frames: Vec<StackFrame>,
    /// The request's lines of the log.
    log: Vec<String>,
    /// The request line and the fields, as names and values.
    request: Vec<(String, String)>,
}

impl ShownRequest {
    /// Copies what is shown of a request.
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

/// Whether a response needs an explanation. It is the host's own, because the app panicked or does not
/// serve; or it is an app's 500 that is not a page.
pub(super) fn needs_explanation(response: &Response<ResponseBody>) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let is_html = kind.is_some_and(|kind| kind.starts_with(b"text/html"));
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => response.body().is_own(),
        StatusCode::INTERNAL_SERVER_ERROR => response.body().is_own() || !is_html,
        _ => false,
    }
}

/// Replaces a response by its explanation, unless the client may need the app's own response.
pub(super) fn explain(
    response: &mut Response<ResponseBody>,
    asked: &ShownRequest,
    state: Option<&SessionState>,
) {
    let is_html = accepts(&asked.headers, "text/html");
    // The client of an API may need what its app says.
    if !response.body().is_own() && !is_html {
        return;
    }
    let kind = asked.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    // gRPC has its status in trailers, and a client that gets text reports another error.
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return;
    }
    let explanation = Explanation::of(response, asked, state);
    let status = explanation.status;
    let (kind, body) = if is_html {
        ("text/html; charset=utf-8", html::page(&explanation))
    } else if accepts(&asked.headers, "json") {
        ("application/json", explanation.json())
    } else {
        ("text/plain; charset=utf-8", explanation.text())
    };
    *response.status_mut() = status;
    // The fields of the app's response described another body. Only the id stays.
    let id = response.headers().get("x-request-id").cloned();
    let headers = response.headers_mut();
    headers.clear();
    headers.extend(id.map(|id| (HeaderName::from_static("x-request-id"), id)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if asked.method != Method::HEAD {
        response.body_mut().replace(body);
    }
}

impl Explanation {
    fn of(
        response: &Response<ResponseBody>,
        asked: &ShownRequest,
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
            request: asked.lines(),
            ..Self::default()
        };
        match response.status() {
            StatusCode::INTERNAL_SERVER_ERROR => explanation.set_panic(panic, state),
            _ => explanation.set_absence(asked, state),
        }
        explanation
    }

    /// Explains a 500, by the panic if there was one.
    fn set_panic(&mut self, panic: Option<recent::Panic>, state: Option<&SessionState>) {
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
    fn set_absence(&mut self, asked: &ShownRequest, state: Option<&SessionState>) {
        let Some(state) = state else {
            "The session has not begun".clone_into(&mut self.message);
            return;
        };
        let report = crate::dev::plain(&state.report);
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
                    asked.uri.path()
                )
            }
        };
    }

    /// Returns the explanation for programs.
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

    /// Returns the explanation for a terminal.
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

/// Whether a header field or a query parameter of this name may hold a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "auth", "cookie", "csrf", "key", "passw", "secret", "session", "token",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Returns a query whose secret values are masked.
fn masked_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// Shown in place of a secret.
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
        let shown = ShownRequest::of(&head).lines();
        let text = format!("{shown:?}");
        assert!(!text.contains("abc"), "{text}");
        assert!(
            text.contains("/pay?sum=3&api_key=•••") && text.contains("text/html"),
            "{text}"
        );
    }
}
