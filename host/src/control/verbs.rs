//! The requests of the control socket: a router, and a function for each verb.
//!
//! Bodies are JSON. A verb sends a message to the task that owns the subject, the supervisor or the level,
//! and answers with the result.

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

/// The parts of the host that verbs act on.
#[derive(Clone, Debug)]
pub struct Control {
    /// Reads and changes the log level.
    pub levels: LevelHandle,
    /// Sends requests to the supervisor.
    pub handle: Handle,
    /// The plugins folder, which uploaded libraries are written to.
    pub plugins: PathBuf,
}

/// Routes a request to its verb, and returns the answer.
async fn route(control: &Control, request: Request<Incoming>) -> Result<Value, VerbError> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match (&head.method, path.as_slice()) {
        (&Method::GET, ["log-level"]) => log_level(control).await,
        (&Method::PUT, ["log-level"]) => set_log_level(control, read(body).await?).await,
        (_, ["log-level"]) => Err(VerbError::Method("GET, PUT")),
        (&Method::GET, ["plugins"]) => plugins(control).await,
        (_, ["plugins"]) => Err(VerbError::Method("GET")),
        (&Method::POST, ["plugins", name, "reload"]) => {
            Ok(json!(control.handle.reload((*name).to_owned()).await?))
        }
        (&Method::POST, ["plugins", name, "rollback"]) => {
            Ok(json!(control.handle.rollback((*name).to_owned()).await?))
        }
        (_, ["plugins", _, "reload" | "rollback"]) => Err(VerbError::Method("POST")),
        (&Method::POST, ["recycle"]) => recycle(control, None).await,
        (&Method::POST, ["workers", worker, "recycle"]) => match worker.parse() {
            Ok(worker) => recycle(control, Some(worker)).await,
            Err(_) => Err(VerbError::NotFound(head.uri.path().to_owned())),
        },
        (_, ["recycle"] | ["workers", _, "recycle"]) => Err(VerbError::Method("POST")),
        (&Method::POST, ["upgrade"]) => {
            let UpgradeRequest { path } = read(body).await?;
            let upgraded = control.handle.upgrade(path).await;
            Ok(json!({ "build": upgraded.map_err(VerbError::Workers)? }))
        }
        (_, ["upgrade"]) => Err(VerbError::Method("POST")),
        (&Method::GET, ["workers"]) => Ok(json!(control.handle.workers().await?)),
        (&Method::PUT, ["workers"]) => scale(control, read(body).await?).await,
        (_, ["workers"]) => Err(VerbError::Method("GET, PUT")),
        (&Method::PUT, ["libraries", name]) => deploy(control, name, body).await,
        (_, ["libraries", _]) => Err(VerbError::Method("PUT")),
        _ => Err(VerbError::NotFound(head.uri.path().to_owned())),
    }
}

/// `GET /log-level`: the level in force, and until when.
async fn log_level(control: &Control) -> Result<Value, VerbError> {
    let state = control.levels.state().await.ok_or(VerbError::Stopping)?;
    Ok(describe(&state))
}

/// `PUT /log-level`: changes the level of the host and of every generation, and answers with the new and
/// the previous one after the change.
async fn set_log_level(control: &Control, wanted: SetLevelRequest) -> Result<Value, VerbError> {
    let directives: Directives = wanted.level.parse()?;
    let lasts = wanted.duration.as_deref();
    let lasts = lasts.map(positive_duration).transpose()?;
    let by = "ctl";
    let changed = control
        .levels
        .set(SetLevel {
            directives,
            duration: lasts,
            by,
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

/// `GET /plugins`: the apps and their generations, and the costs of loads.
async fn plugins(control: &Control) -> Result<Value, VerbError> {
    Ok(json!(control.handle.report().await?))
}

/// The body of `POST /upgrade`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeRequest {
    /// The program to execute. By default the one that is now at the path of the running program.
    path: Option<PathBuf>,
}

/// `POST /recycle` and `POST /workers/NUMBER/recycle`: replaces all workers, or one, by fresh ones.
async fn recycle(control: &Control, worker: Option<u64>) -> Result<Value, VerbError> {
    let recycled = control.handle.recycle(worker).await;
    let recycled = recycled.map_err(VerbError::Workers)?;
    Ok(json!({ "recycled": recycled }))
}

/// `PUT /workers`: changes the number of worker processes.
async fn scale(control: &Control, wanted: ScaleRequest) -> Result<Value, VerbError> {
    let scale = Scale::To(wanted.workers);
    Ok(json!(control.handle.scale(scale).await?))
}

/// `PUT /libraries/NAME`: loads the library in the body, and then puts it into the plugins folder.
async fn deploy(control: &Control, name: &str, body: Incoming) -> Result<Value, VerbError> {
    let upload = upload::receive(&control.plugins, name, body).await?;
    Ok(json!(control.handle.deploy(upload).await?))
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
    #[serde(rename = "for")]
    duration: Option<String>,
}

/// Returns the answer about a level that is in force.
fn describe(state: &LevelState) -> Value {
    let mut answer = json!({ "level": state.directives.to_string() });
    if let Some((until, then)) = &state.until {
        answer["until"] = humantime::format_rfc3339_seconds(*until).to_string().into();
        answer["then"] = then.to_string().into();
    }
    answer
}

/// Answers a request.
///
/// # Errors
///
/// Never fails: a verb that fails is answered with a status and `{ "error": TEXT }`.
pub async fn answer(
    control: &Control,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, allow, answer) = match route(control, request).await {
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
    let mut response = Response::new(Full::from(format!("{answer}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(allow.map(|allow| (ALLOW, allow)));
    Ok(response)
}

/// Reads the body of a request as JSON of the type that the verb expects.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, VerbError> {
    let collected = time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let Ok(Ok(body)) = collected else {
        return Err(VerbError::Incomplete);
    };
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// The reason why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum VerbError {
    #[error("{}", chain(.0))]
    Ask(#[from] CommandError),
    #[error("the request's body is not what was expected: {0}")]
    Body(#[from] serde_json::Error),
    #[error("the request's body did not come, or is larger than {MAX_BODY} bytes")]
    Incomplete,
    #[error(transparent)]
    Level(#[from] LevelError),
    #[error("the method is not one of this path's, expected one of {0}")]
    Method(&'static str),
    #[error(
        "there is no {0:?} here, expected /log-level, /plugins, /plugins/NAME/reload, /plugins/NAME/rollback, /recycle, /workers, /workers/NUMBER/recycle, /upgrade or /libraries/FILE.so"
    )]
    NotFound(String),
    #[error("the host is stopping")]
    Stopping,
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("{0}")]
    Workers(String),
}

impl VerbError {
    /// Returns the status of the response.
    fn status(&self) -> StatusCode {
        match self {
            Self::Ask(CommandError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Ask(CommandError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ask(CommandError::WorkerCount { .. }) => StatusCode::BAD_REQUEST,
            Self::Ask(_) | Self::Workers(_) => StatusCode::CONFLICT,
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

/// The size limit of a JSON body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The time that a client has to send a JSON body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
