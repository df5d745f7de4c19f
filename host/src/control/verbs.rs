//! What can be asked on the control socket: one function each, and the table that finds it.
//!
//! A verb takes and gives JSON. It sends a message to whoever owns what it is about, and answers
//! with what came of it.

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
    log::level::{Levels, SetLevel, State},
    supervisor::{AskError, Handle, Scale},
};

/// Those who can do what is asked.
#[derive(Clone, Debug)]
pub struct Control {
    /// The log level.
    pub levels: Levels,
    /// The plugins.
    pub handle: Handle,
    /// The plugins folder, for libraries that are uploaded.
    pub plugins: PathBuf,
}

/// Finds the verb for a request.
async fn verb(control: &Control, request: Request<Incoming>) -> Result<Value, Refusal> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match (&head.method, path.as_slice()) {
        (&Method::GET, ["log-level"]) => log_level(control).await,
        (&Method::PUT, ["log-level"]) => set_log_level(control, read(body).await?).await,
        (_, ["log-level"]) => Err(Refusal::Method("GET, PUT")),
        (&Method::GET, ["plugins"]) => plugins(control).await,
        (_, ["plugins"]) => Err(Refusal::Method("GET")),
        (&Method::POST, ["plugins", name, "reload"]) => {
            Ok(json!(control.handle.reload((*name).to_owned()).await?))
        }
        (&Method::POST, ["plugins", name, "rollback"]) => {
            Ok(json!(control.handle.rollback((*name).to_owned()).await?))
        }
        (_, ["plugins", _, "reload" | "rollback"]) => Err(Refusal::Method("POST")),
        (&Method::POST, ["recycle"]) => recycle(control, None).await,
        (&Method::POST, ["workers", worker, "recycle"]) => match worker.parse() {
            Ok(worker) => recycle(control, Some(worker)).await,
            Err(_) => Err(Refusal::NotFound(head.uri.path().to_owned())),
        },
        (_, ["recycle"] | ["workers", _, "recycle"]) => Err(Refusal::Method("POST")),
        (&Method::POST, ["upgrade"]) => {
            let UpgradeTo { path } = read(body).await?;
            let upgraded = control.handle.upgrade(path).await;
            Ok(json!({ "build": upgraded.map_err(Refusal::Workers)? }))
        }
        (_, ["upgrade"]) => Err(Refusal::Method("POST")),
        (&Method::GET, ["workers"]) => Ok(json!(control.handle.workers().await?)),
        (&Method::PUT, ["workers"]) => scale(control, read(body).await?).await,
        (_, ["workers"]) => Err(Refusal::Method("GET, PUT")),
        (&Method::PUT, ["libraries", name]) => deploy(control, name, body).await,
        (_, ["libraries", _]) => Err(Refusal::Method("PUT")),
        _ => Err(Refusal::NotFound(head.uri.path().to_owned())),
    }
}

/// `GET /log-level`: what is in force, and until when.
async fn log_level(control: &Control) -> Result<Value, Refusal> {
    let state = control.levels.state().await.ok_or(Refusal::Stopping)?;
    Ok(describe(&state))
}

/// `PUT /log-level`: changes what is in force, in the host and every generation, before it answers
/// with what was, and is.
async fn set_log_level(control: &Control, wanted: WantedLevel) -> Result<Value, Refusal> {
    let directives: Directives = wanted.level.parse()?;
    let lasts = wanted.lasts.as_deref().map(positive_duration).transpose()?;
    let by = "ctl";
    let changed = control
        .levels
        .set(SetLevel {
            directives,
            lasts,
            by,
        })
        .await
        .ok_or(Refusal::Stopping)?;
    let mut answer = describe(&changed.is);
    answer["was"] = changed.was.to_string().into();
    if !changed.unconfirmed.is_empty() {
        answer["unconfirmed"] = changed.unconfirmed.into();
    }
    Ok(answer)
}

/// `GET /plugins`: the apps, and what their loads cost.
async fn plugins(control: &Control) -> Result<Value, Refusal> {
    Ok(json!(control.handle.report().await?))
}

/// The body of `POST /upgrade`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeTo {
    /// The program; without one, that at the path of the one that runs.
    path: Option<PathBuf>,
}

/// `POST /recycle` and `POST /workers/NUMBER/recycle`: replaces all workers, or one, by fresh ones.
async fn recycle(control: &Control, worker: Option<u64>) -> Result<Value, Refusal> {
    let recycled = control.handle.recycle(worker).await;
    let recycled = recycled.map_err(Refusal::Workers)?;
    Ok(json!({ "recycled": recycled }))
}

/// `PUT /workers`: has another number of worker processes.
async fn scale(control: &Control, wanted: WantedWorkers) -> Result<Value, Refusal> {
    let scale = Scale::To(wanted.workers);
    Ok(json!(control.handle.scale(scale).await?))
}

/// `PUT /libraries/NAME`: loads the library that is the body, and puts it into the plugins folder.
async fn deploy(control: &Control, name: &str, body: Incoming) -> Result<Value, Refusal> {
    let upload = upload::receive(&control.plugins, name, body).await?;
    Ok(json!(control.handle.deploy(upload).await?))
}

/// The body of `PUT /workers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedWorkers {
    workers: usize,
}

/// The body of `PUT /log-level`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLevel {
    level: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
}

fn describe(state: &State) -> Value {
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
/// Never: what goes wrong is answered.
pub async fn answer(
    control: &Control,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, allow, answer) = match verb(control, request).await {
        Ok(answer) => (StatusCode::OK, None, answer),
        Err(refusal) => {
            let allow = match refusal {
                Refusal::Method(allow) => Some(HeaderValue::from_static(allow)),
                _ => None,
            };
            let answer = json!({ "error": refusal.to_string() });
            (refusal.status(), allow, answer)
        }
    };
    let mut response = Response::new(Full::from(format!("{answer}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(allow.map(|allow| (ALLOW, allow)));
    Ok(response)
}

/// The body of a request, as JSON of the verb's form.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let collected = time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let Ok(Ok(body)) = collected else {
        return Err(Refusal::Incomplete);
    };
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// A request that is not done.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{}", chain(.0))]
    Ask(#[from] AskError),
    #[error("the request's body is not what was expected: {0}")]
    Body(#[from] serde_json::Error),
    #[error("the request's body did not come, or is larger than {MAX_BODY} bytes")]
    Incomplete,
    #[error(transparent)]
    Level(#[from] LevelError),
    #[error("the method is not one of this path's, expected one of {0}")]
    Method(&'static str),
    #[error(
        "there is no {0:?} here, expected /log-level, /plugins, /plugins/NAME/reload, /plugins/NAME/rollback, /recycle, /workers, /workers/NUMBER/recycle or /libraries/FILE.so"
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

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Ask(AskError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Ask(AskError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ask(AskError::WorkerCount { .. }) => StatusCode::BAD_REQUEST,
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

/// The largest body that a verb takes, in bytes.
const MAX_BODY: usize = 64 << 10;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
