//! An app as a program of its own: what [`main!`](crate::main) runs.

use std::{
    convert::Infallible, env, error::Error, io, net::SocketAddr, process::ExitCode, sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time,
};
use tracing::{error, info, warn};
use tracing_core::LevelFilter;
use tracing_subscriber::{filter::filter_fn, fmt, layer::SubscriberExt};

use crate::{
    BoxError, Context, Level,
    guest::{Building, Facts, Local},
    level::Directives,
};

/// Makes a program of a crate with an app: a server of its own, and a log of its own.
///
/// The program takes `--bind ADDRESS` (127.0.0.1:8000 without it; port 0 takes a free one) and
/// `--log-level LEVEL` (info without it), spelled as the server spells it, or the variables
/// `HOST_BIND` and `HOST_LOG_LEVEL`. It serves HTTP/1.1 and HTTP/2, prints where on stdout, logs to
/// stderr, and stops gracefully on SIGTERM and SIGINT.
///
/// With the feature `standalone`. The crate is both a library and a program: `src/lib.rs` has the
/// function and `export_app!`, `src/main.rs` this line. The feature is to be off when the plugin is
/// built, which then does not carry a server along:
///
/// ```toml
/// [lib]
/// crate-type = ["cdylib", "rlib"]
///
/// [[bin]]
/// name = "shop"
/// path = "src/main.rs"
/// required-features = ["standalone"]
///
/// [features]
/// standalone = ["plugin-api/standalone"]
/// ```
///
/// ```no_run
/// # mod shop { pub async fn app() -> axum::Router { axum::Router::new() } }
/// plugin_api::main!(shop::app);
/// ```
#[macro_export]
macro_rules! main {
    ($app:path $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::__private::standalone(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                |context| $crate::__private::build($app, context),
            )
        }
    };
}

/// Serves the app until a signal says stop. 0, 2 for a wrong command line, 1 when it cannot start.
pub fn run(
    name: &'static str,
    version: &'static str,
    build: impl FnOnce(Context) -> Building,
) -> ExitCode {
    let options = match Options::read(env::args().skip(1), |variable| env::var(variable).ok()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr(options.log_level.clone());
    let served = Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(&options, name, version, build)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn Error, "Cannot start");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Options {
    bind: String,
    log_level: Directives,
}

impl Options {
    /// The options of a command line, and where it has none those of the environment.
    fn read(
        args: impl Iterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BoxError> {
        let mut bind = variable("HOST_BIND");
        let mut log_level = variable("HOST_LOG_LEVEL");
        let mut args = args;
        while let Some(arg) = args.next() {
            let (flag, value) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (&*arg, None),
            };
            let option = match flag {
                "--bind" => &mut bind,
                "--log-level" => &mut log_level,
                _ => {
                    let usage = "expected --bind ADDRESS or --log-level LEVEL";
                    return Err(format!("unexpected argument {arg:?}, {usage}").into());
                }
            };
            let value = value.or_else(|| args.next());
            *option = Some(value.ok_or_else(|| format!("{flag} needs a value"))?);
        }
        Ok(Self {
            bind: bind.unwrap_or_else(|| "127.0.0.1:8000".to_owned()),
            log_level: match log_level {
                Some(text) => text.parse()?,
                None => Directives::default(),
            },
        })
    }
}

/// `tracing` and `log` as lines of text.
fn log_to_stderr(directives: Directives) {
    let max = LevelFilter::from(directives.max_level());
    let filter =
        filter_fn(move |metadata| Level::of(metadata) <= directives.level(None, metadata.target()));
    let subscriber = tracing_subscriber::registry()
        .with(fmt::layer().with_writer(io::stderr))
        .with(filter.with_max_level_hint(max));
    // The program has set up none before this.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
}

async fn serve(
    options: &Options,
    name: &str,
    version: &'static str,
    build: impl FnOnce(Context) -> Building,
) -> Result<(), BoxError> {
    let listener = TcpListener::bind(&*options.bind)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.bind))?;
    let context = Context::new(Facts {
        name: name.to_owned(),
        mount: "/".to_owned(),
        version,
        generation: 1,
        config: None,
        previous_state: None,
    });
    let app = Arc::new(Local::start(context, build).await?);
    println!("Listening on http://{}", listener.local_addr()?);

    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, &app, &connections),
                Err(error) => {
                    warn!(%error, "Cannot accept connections, trying again");
                    time::sleep(BACK_OFF).await;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("Stopping");
    drop(listener);
    app.drain();
    if time::timeout(PATIENCE, connections.shutdown())
        .await
        .is_err()
    {
        warn!("Cutting off connections that did not end in time");
    }
    app.stop().await;
    Ok(())
}

fn connect(stream: TcpStream, peer: SocketAddr, app: &Arc<Local>, connections: &GracefulShutdown) {
    let app = Arc::clone(app);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request, Some(peer)).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let connection = connections.watch(connection.into_owned());
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%peer, error = &*error, "Connection failed");
        }
    });
}

/// How long to wait when the system has no room for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long requests in flight may go on after a signal.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Options, BoxError> {
        let args = args.iter().map(|&arg| arg.to_owned());
        Options::read(args, |variable| {
            (variable == "HOST_LOG_LEVEL").then(|| "warning".to_owned())
        })
    }

    #[test]
    fn flags_go_before_variables_and_these_before_defaults() {
        let options = read(&["--bind", "[::1]:0"]).unwrap();
        assert_eq!(
            (&*options.bind, &*options.log_level.to_string()),
            ("[::1]:0", "warn")
        );
        let options = read(&["--log-level=info,shop=debug"]).unwrap();
        assert_eq!(options.bind, "127.0.0.1:8000");
        assert_eq!(options.log_level.to_string(), "info,shop=debug");
    }

    #[test]
    fn wrong_usage_says_what_was_expected() {
        for (args, part) in [
            (
                &["--log-level=loud"][..],
                "\"loud\" is not a log level, expected trace",
            ),
            (&["--bind"], "--bind needs a value"),
            (
                &["--port=1"],
                "unexpected argument \"--port=1\", expected --bind",
            ),
        ] {
            let error = read(args).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
