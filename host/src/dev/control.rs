//! Sends requests to the control socket of the session's server.

use std::{error::Error, path::Path};

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::ctl::client;

/// Returns the server's report about its apps, the same JSON as `host ctl plugins --json` prints.
///
/// # Errors
///
/// Fails when the server does not listen on `socket`, or when the response is no JSON.
pub(super) async fn fetch_report(socket: &Path) -> Result<Value, BoxError> {
    send_request(socket, Method::GET, "/plugins", Full::default()).await
}

/// Changes the log level of the server. Returns a line for the author: the new level, or the reason why the level was
/// not changed.
pub(super) async fn set_level(socket: &Path, level: &str) -> String {
    let body = json!({ "level": level }).to_string();
    match send_request(socket, Method::PUT, "/log-level", body.into()).await {
        Ok(answer) => match (answer["error"].as_str(), answer["level"].as_str()) {
            (Some(error), _) => error.to_owned(),
            (None, level) => format!("log level {}", level.unwrap_or_default()),
        },
        Err(error) => format!("the server does not answer: {error}"),
    }
}

/// Sends a request over a new connection, and returns the response's body, parsed as JSON.
async fn send_request(
    socket: &Path,
    method: Method,
    path: &str,
    body: Full<Bytes>,
) -> Result<Value, BoxError> {
    let request = client::request(method, path, body)?;
    let stream = UnixStream::connect(socket).await?;
    let (_, body) = client::exchange(stream, request).await?;
    Ok(serde_json::from_slice(&body)?)
}

type BoxError = Box<dyn Error + Send + Sync>;
