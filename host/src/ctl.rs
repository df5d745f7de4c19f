//! `host ctl`: sends a request to a running host over the control socket, and prints the answer for people.

pub(crate) mod client;
mod deploy;
mod plugins;
mod workers;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Subcommand;
use http::{Method, Request};
use http_body_util::Full;
use plugin_api::{level::Directives, manifest::is_name};
use serde_json::{Value, json};
use tokio::{net::UnixStream, runtime::Builder, time};

use crate::{
    config::{ControlSocket, MAX_WORKERS, quantity::positive_duration},
    error_chain::chain,
    terminal::{print, print_error},
};

/// The command line of `host ctl`: the control socket of a host, and the request.
#[derive(Clone, Debug, clap::Args)]
pub struct CtlArgs {
    /// The control socket of the host, as it was started with
    #[arg(
        long,
        global = true,
        value_name = "unix:PATH",
        env = "HOST_CONTROL",
        hide_env_values = true
    )]
    control: Option<ControlSocket>,

    /// How long to wait for the answer [default: 10s; for deploy, recycle, reload, rollback and upgrade, as long as the loads and
    /// the requests in the old generation take]
    #[arg(long, global = true, value_name = "TIME", value_parser = positive_duration)]
    timeout: Option<Duration>,

    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

/// A request to a host. Each verb has its own HTTP request, and its own format for the answer.
#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Show the log level in force, or change it for the host and every plugin, at once
    LogLevel {
        /// The new level, as for the host's --log-level
        level: Option<Directives>,
        /// Go back after this time, as in 5m
        #[arg(long = "for", value_name = "TIME", requires = "level", value_parser = positive_duration)]
        duration: Option<Duration>,
    },
    /// Show the apps: what serves, what it did, what is on its way, and what loads have cost
    Plugins,
    /// Load an app from its library again, even if that did not change, and wait until the old
    /// generation has finished what it had
    Reload {
        /// The app
        #[arg(value_parser = app_name)]
        name: String,
    },
    /// Replace all worker processes by fresh ones, one after the other, without losing a request
    Recycle {
        /// Replace only the worker with this number in `host ctl workers`
        worker: Option<u64>,
    },
    /// Execute another build of the host in place: the same process and sockets, then fresh workers
    Upgrade {
        /// The program; without it, that at the path of the one that runs
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Load the library of an app that served before the one that does, and wait as reload does
    Rollback {
        /// The app
        #[arg(value_parser = app_name)]
        name: String,
    },
    /// Check libraries as `host check` does, load each and put it into the plugins folder, in place of
    /// the one that its plugin has there. Waits as reload does. When one is not loaded, the folder
    /// stays as it is and the exit code is 1
    Deploy {
        /// The libraries
        #[arg(value_name = "FILE.so", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show the worker processes: what each does and takes, and which died last
    Workers,
    /// Have another number of worker processes, until the host is started again
    Scale {
        /// How many
        #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
        workers: u16,
    },
}

impl Verb {
    /// Returns the HTTP request of the verb. Must not be called for `deploy`, which sends a request for each file.
    fn request(&self) -> Result<Request<Full<Bytes>>, CtlError> {
        let (method, path, body) = match self {
            Self::Deploy { .. } => unreachable!("each file has a request of its own"),
            Self::Plugins => (Method::GET, "/plugins", None),
            Self::Workers => (Method::GET, "/workers", None),
            Self::Scale { workers } => {
                let body = json!({ "workers": workers });
                (Method::PUT, "/workers", Some(body))
            }
            Self::Reload { name } => (Method::POST, &*format!("/plugins/{name}/reload"), None),
            Self::Recycle { worker: None } => (Method::POST, "/recycle", None),
            Self::Recycle {
                worker: Some(worker),
            } => (Method::POST, &*format!("/workers/{worker}/recycle"), None),
            Self::Upgrade { path } => {
                let path = path.as_ref().map(std::path::absolute);
                // Send an absolute path, because the host would resolve a relative path in its own working directory.
                let path = path.transpose().map_err(CtlError::Path)?;
                (Method::POST, "/upgrade", Some(json!({ "path": path })))
            }
            Self::Rollback { name } => (Method::POST, &*format!("/plugins/{name}/rollback"), None),
            Self::LogLevel { level: None, .. } => (Method::GET, "/log-level", None),
            Self::LogLevel {
                level: Some(level),
                duration,
            } => {
                let duration = duration.map(|time| humantime::format_duration(time).to_string());
                let body = json!({ "level": level.to_string(), "for": duration });
                (Method::PUT, "/log-level", Some(body))
            }
        };
        let body = body.map_or_else(Full::default, |body| Full::from(body.to_string()));
        client::request(method, path, body).map_err(CtlError::Request)
    }

    /// Returns the time limit for the answer if `--timeout` is not set. Returns `None` for verbs that wait for loads
    /// and for requests in flight, because these may take any time.
    fn default_timeout(&self) -> Option<Duration> {
        match self {
            Self::LogLevel { .. } | Self::Plugins | Self::Scale { .. } | Self::Workers => {
                Some(ANSWER_TIMEOUT)
            }
            Self::Deploy { .. }
            | Self::Recycle { .. }
            | Self::Reload { .. }
            | Self::Rollback { .. }
            | Self::Upgrade { .. } => None,
        }
    }

    /// Formats an answer for people.
    fn format(&self, answer: &Value) -> String {
        let text = |key: &str| answer[key].as_str();
        match self {
            Self::Plugins => plugins::format_report(answer),
            Self::Upgrade { .. } => format!("upgrading to {}", text("build").unwrap_or_default()),
            Self::Recycle { .. } => format!("{} workers recycled", answer["recycled"]),
            Self::Reload { .. } | Self::Rollback { .. } => plugins::format_reload(answer),
            Self::Deploy { .. } => deploy::format_deployed(answer),
            Self::Workers => workers::format_table(answer),
            Self::Scale { .. } => format!(
                "{} workers ({} before); see host ctl workers",
                answer["workers"], answer["was"]
            ),
            Self::LogLevel { .. } => {
                let level = text("level").unwrap_or_default();
                let was = text("was").map_or_else(String::new, |was| format!(" (was {was})"));
                let until = text("until").zip(text("then"));
                let until = until.map_or_else(String::new, |(until, then)| {
                    format!(" until {until}, then {then}")
                });
                // The libraries that did not confirm in time that they log at the new level.
                let unconfirmed = answer["unconfirmed"].as_array();
                let unconfirmed: Vec<_> = unconfirmed.into_iter().flatten().collect();
                let unconfirmed = match &*unconfirmed {
                    [] => String::new(),
                    names => {
                        let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).collect();
                        format!("\nnot confirmed in time: {}", names.join(", "))
                    }
                };
                format!("{level}{until}{was}{unconfirmed}")
            }
        }
    }
}

/// Parses the name of an app. Rejects any other text, because the name becomes part of a request's path: a text with a
/// slash could address another resource.
fn app_name(text: &str) -> Result<String, String> {
    if is_name(text.as_bytes()) {
        Ok(text.to_owned())
    } else {
        Err("expected up to 64 ASCII letters, digits, `-` and `_`".to_owned())
    }
}

/// Sends the request and prints the answer. Returns the exit code of the process: 0, 1 when the request failed, or 2
/// when the command line and the environment name no control socket.
#[must_use]
pub fn run(args: &CtlArgs) -> ExitCode {
    // Check here that the option is set, because clap does not accept a global option that is required.
    let Some(socket) = &args.control else {
        print_error(
            "no control socket, expected --control=unix:PATH or HOST_CONTROL, as the host was started with",
        );
        return ExitCode::from(2);
    };
    if let Verb::Deploy { files } = &args.verb {
        return deploy::run(args, socket, files);
    }
    let request = args.verb.request();
    match request.and_then(|request| send_request(args, socket, request)) {
        Ok(answer) if args.json => print(answer, ExitCode::SUCCESS),
        Ok(answer) => print(args.verb.format(&answer), ExitCode::SUCCESS),
        Err(error) => {
            print_error(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Sends a request, and returns the JSON of the answer.
///
/// # Errors
///
/// Fails when the host cannot be reached, does not answer in time, or answers with an error.
fn send_request(
    args: &CtlArgs,
    socket: &ControlSocket,
    request: Request<Full<Bytes>>,
) -> Result<Value, CtlError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let exchanged = runtime.map_err(CtlError::Runtime)?.block_on(async {
        let stream = UnixStream::connect(socket.path()).await;
        let stream = stream.map_err(|source| CtlError::Connect {
            socket: socket.clone(),
            source,
        })?;
        let exchange = client::exchange(stream, request);
        let answer = match args.timeout.or(args.verb.default_timeout()) {
            Some(limit) => time::timeout(limit, exchange)
                .await
                .map_err(|_| CtlError::Timeout {
                    socket: socket.clone(),
                    limit,
                })?,
            None => exchange.await,
        };
        answer.map_err(CtlError::Exchange)
    });
    let (status, body) = exchanged?;
    let answer: Value = serde_json::from_slice(&body).map_err(CtlError::Answer)?;
    match answer["error"].as_str() {
        Some(error) if !status.is_success() => Err(CtlError::Refused(error.to_owned())),
        _ => Ok(answer),
    }
}

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    /// The host's answer is no JSON.
    #[error("the host's answer is not JSON; is --control the socket of a host?")]
    Answer(#[source] serde_json::Error),
    /// No process listens on the socket.
    #[error("cannot reach a host on {socket}: is it running with --control {socket}?")]
    Connect {
        socket: ControlSocket,
        source: io::Error,
    },
    /// The connection was closed before the whole answer arrived.
    #[error("the connection to the host failed")]
    Exchange(#[source] hyper::Error),
    /// A library to deploy cannot be read.
    #[error("cannot read {}", file.display())]
    File { file: PathBuf, source: io::Error },
    /// The path of the program for `upgrade` is relative, and the working directory does not exist.
    #[error("the path cannot be made absolute")]
    Path(#[source] io::Error),
    /// The host rejected the request. The text is the host's reason.
    #[error("{0}")]
    Refused(String),
    /// The path of the HTTP request is not valid in a URI.
    #[error("this cannot be asked")]
    Request(#[source] http::Error),
    /// The system provides no resources for a runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The host did not answer within the time limit.
    #[error(
        "the host on {socket} does not answer within {}: is it stopped, or out of descriptors? See --timeout",
        humantime::format_duration(*limit)
    )]
    Timeout {
        socket: ControlSocket,
        limit: Duration,
    },
}

/// The default time limit for verbs that a host answers at once. A stopped host (SIGSTOP) would never answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
