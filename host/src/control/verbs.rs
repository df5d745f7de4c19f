//! The requests of the control socket: a router, and a function for each verb.
//!
//! Bodies are JSON, except the body of `PUT /libraries/NAME`, which is a library. A verb sends a message to the task
//! that owns the subject (the supervisor, or the task of the log level), and responds with the result.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use plugin_api::level::{Directives, LevelError};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time;

use super::upload::{self, UploadError};
use crate::{
    config::{ValueError, quantity::positive_duration},
    error_chain::chain,
    log::level::{LevelHandle, LevelState, SetLevel},
    supervisor::{CommandError, Handle, Scale},
};

/// The parts of the host that the verbs use.
#[derive(Clone, Debug)]
pub struct ControlContext {
    /// Sends requests to the task of the log level.
    pub levels: LevelHandle,
    /// Sends requests to the supervisor.
    pub handle: Handle,
    /// The plugins folder, into which uploaded libraries are written.
    pub plugins: PathBuf,
}

/// Runs the verb that the method and the path name, and returns the body of the response.
///
/// For each path, the last arm rejects all other methods.
async fn route(context: &ControlContext, request: Request<Incoming>) -> Result<Value, VerbError> {
    let (head, body) = request.into_parts();
    // Skip the empty segment before the first slash.
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match (&head.method, path.as_slice()) {
        (&Method::GET, ["log-level"]) => log_level(context).await,
        (&Method::PUT, ["log-level"]) => set_log_level(context, read(body).await?).await,
        (_, ["log-level"]) => Err(VerbError::Method("GET, PUT")),
        (&Method::GET, ["plugins"]) => plugins(context).await,
        (_, ["plugins"]) => Err(VerbError::Method("GET")),
        (&Method::POST, ["plugins", name, "reload"]) => {
            Ok(json!(context.handle.reload((*name).to_owned()).await?))
        }
        (&Method::POST, ["plugins", name, "rollback"]) => {
            Ok(json!(context.handle.rollback((*name).to_owned()).await?))
        }
        (_, ["plugins", _, "reload" | "rollback"]) => Err(VerbError::Method("POST")),
        (&Method::POST, ["recycle"]) => recycle(context, None).await,
        (&Method::POST, ["workers", worker, "recycle"]) => match worker.parse() {
            Ok(worker) => recycle(context, Some(worker)).await,
            Err(_) => Err(VerbError::NotFound(head.uri.path().to_owned())),
        },
        (_, ["recycle"] | ["workers", _, "recycle"]) => Err(VerbError::Method("POST")),
        (&Method::POST, ["upgrade"]) => {
            let UpgradeRequest { path } = read(body).await?;
            let upgraded = context.handle.upgrade(path).await;
            Ok(json!({ "build": upgraded.map_err(VerbError::Workers)? }))
        }
        (_, ["upgrade"]) => Err(VerbError::Method("POST")),
        (&Method::GET, ["workers"]) => Ok(json!(context.handle.workers().await?)),
        (&Method::PUT, ["workers"]) => scale(context, read(body).await?).await,
        (_, ["workers"]) => Err(VerbError::Method("GET, PUT")),
        (&Method::PUT, ["libraries", name]) => deploy(context, name, body).await,
        (_, ["libraries", _]) => Err(VerbError::Method("PUT")),
        _ => Err(VerbError::NotFound(head.uri.path().to_owned())),
    }
}

/// `GET /log-level`: returns the level in force, and when the level reverts if the change is temporary.
async fn log_level(context: &ControlContext) -> Result<Value, VerbError> {
    let state = context.levels.state().await.ok_or(VerbError::Stopping)?;
    Ok(describe(&state))
}

/// `PUT /log-level`: changes the level of the host and of every generation. After the change, returns the new level and
/// the previous level.
async fn set_log_level(
    context: &ControlContext,
    wanted: SetLevelRequest,
) -> Result<Value, VerbError> {
    let directives: Directives = wanted.level.parse()?;
    let duration = wanted.duration.as_deref();
    let duration = duration.map(positive_duration).transpose()?;
    let changed = context
        .levels
        .set(SetLevel {
            directives,
            duration,
            changed_by: "ctl",
        })
        .await
        .ok_or(VerbError::Stopping)?;
    let mut answer = describe(&changed.now);
    answer["was"] = changed.before.to_string().into();
    if !changed.unconfirmed.is_empty() {
        answer["unconfirmed"] = changed.unconfirmed.into();
    }
    Ok(answer)
}

/// `GET /plugins`: returns the apps with their generations, and the resources that loads have used.
async fn plugins(context: &ControlContext) -> Result<Value, VerbError> {
    Ok(json!(context.handle.report().await?))
}

/// The body of `POST /upgrade`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeRequest {
    /// The program to execute, or `None` for the program that is now at the path of the running program.
    path: Option<PathBuf>,
}

/// `POST /recycle` and `POST /workers/NUMBER/recycle`: replaces all workers, or only `worker`, by fresh workers.
async fn recycle(context: &ControlContext, worker: Option<u64>) -> Result<Value, VerbError> {
    let recycled = context.handle.recycle(worker).await;
    let recycled = recycled.map_err(VerbError::Workers)?;
    Ok(json!({ "recycled": recycled }))
}

/// `PUT /workers`: changes the number of worker processes.
async fn scale(context: &ControlContext, wanted: ScaleRequest) -> Result<Value, VerbError> {
    let scale = Scale::To(wanted.workers);
    Ok(json!(context.handle.scale(scale).await?))
}

/// `PUT /libraries/NAME`: loads the library in the body, and then puts the file into the plugins folder.
async fn deploy(context: &ControlContext, name: &str, body: Incoming) -> Result<Value, VerbError> {
    let upload = upload::receive(&context.plugins, name, body).await?;
    Ok(json!(context.handle.deploy(upload).await?))
}

/// The body of `PUT /workers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleRequest {
    workers: usize,
}

/// The body of `PUT /log-level`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevelRequest {
    level: String,
    /// The time after which the level reverts, as in `5m`. `None` for a permanent change.
    #[serde(rename = "for")]
    duration: Option<String>,
}

/// Returns the JSON of a level that is in force.
fn describe(state: &LevelState) -> Value {
    let mut answer = json!({ "level": state.directives.to_string() });
    if let Some((until, then)) = &state.until {
        answer["until"] = humantime::format_rfc3339_seconds(*until).to_string().into();
        answer["then"] = then.to_string().into();
    }
    answer
}

/// Runs a request's verb, and returns the response.
///
/// # Errors
///
/// Never fails. If the verb fails, the response has an error status and the body `{ "error": TEXT }`.
pub async fn answer(
    context: &ControlContext,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, allow, answer) = match route(context, request).await {
        Ok(answer) => (StatusCode::OK, None, answer),
        Err(error) => {
            let allow = match error {
                VerbError::Method(allow) => Some(HeaderValue::from_static(allow)),
                _ => None,
            };
            let answer = json!({ "error": error.to_string() });
            (error.status(), allow, answer)
        }
    };
    // End the body with a line break for people who use curl in a terminal.
    let mut response = Response::new(Full::from(format!("{answer}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A response with status 405 must have the header `Allow` (RFC 9110, section 15.5.6).
    headers.extend(allow.map(|allow| (ALLOW, allow)));
    Ok(response)
}

/// Reads the body of a request, and parses the JSON as a value of type `T`.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, VerbError> {
    let collected = time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let Ok(Ok(body)) = collected else {
        return Err(VerbError::Incomplete);
    };
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// The reason why a verb failed.
#[derive(Debug, thiserror::Error)]
enum VerbError {
    /// The supervisor rejects the command, or is stopping.
    #[error("{}", chain(.0))]
    Command(#[from] CommandError),
    /// The body is not the expected JSON.
    #[error("the request's body is not what was expected: {0}")]
    Body(#[from] serde_json::Error),
    /// The body did not arrive completely within [`BODY_TIMEOUT`], or is too large.
    #[error("the request's body was not received, or is larger than {MAX_BODY_BYTES} bytes")]
    Incomplete,
    /// The text is no log level.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The path exists, but only with these methods.
    #[error("the method is not one of this path's, expected one of {0}")]
    Method(&'static str),
    /// The path does not exist.
    #[error(
        "there is no {0:?} here, expected /log-level, /plugins, /plugins/NAME/reload, /plugins/NAME/rollback, /recycle, /workers, /workers/NUMBER/recycle, /upgrade or /libraries/FILE.so"
    )]
    NotFound(String),
    /// The task of the log level has ended.
    #[error("the host is stopping")]
    Stopping,
    /// The library was not received.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The duration is not valid.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The workers are not recycled, or the host is not upgraded, for this reason.
    #[error("{0}")]
    Workers(String),
}

impl VerbError {
    /// Returns the status of the HTTP response for this error.
    fn status(&self) -> StatusCode {
        match self {
            Self::Command(CommandError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Command(CommandError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Command(CommandError::WorkerCount { .. }) => StatusCode::BAD_REQUEST,
            Self::Command(_) | Self::Workers(_) => StatusCode::CONFLICT,
            Self::Upload(error) => error.status(),
            Self::Body(_) | Self::Incomplete | Self::Level(_) | Self::Value(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The maximum size of a JSON body.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The time that a client has to send a JSON body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
