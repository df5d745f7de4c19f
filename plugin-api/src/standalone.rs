//! An app as a program of its own: what [`main!`](crate::main) runs.

mod options;
mod socket;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    process::{self, ExitCode},
    sync::Arc,
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
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time,
};
use tracing::{error, info, warn};
use tracing_core::LevelFilter;
use tracing_subscriber::{filter::filter_fn, fmt, layer::SubscriberExt};

use self::{
    options::{Command, Options},
    socket::Socket,
};
use crate::{
    BoxError, Context, Level,
    guest::{AppFuture, Facts, InProcessApp},
    level::Directives,
};

/// Makes a program of a crate with an app: a server of its own, and a log of its own.
///
/// The program takes `--bind ADDRESS` (127.0.0.1:8000 without it; port 0 takes a free one), `--log-level
/// LEVEL` (info without it) and `--config FILE`, spelled as the server spells them, or the variables
/// `HOST_BIND`, `HOST_LOG_LEVEL` and `HOST_CONFIG`. Of the file, which is the server's, it takes `bind`,
/// `log-level` and the `config` in the table `[app.NAME]`. It serves HTTP/1.1 and HTTP/2, prints where
/// on stdout, logs to stderr, and stops gracefully on SIGTERM and SIGINT, at once on a second one: it waits for
/// requests, and for connections that the app took over, such as WebSockets, for up to 30 s. Key-value
/// pairs of the crate `log` are not among what it logs, as they are in the server.
///
/// The app's name is that of its crate; `main!(shop::app, name = "shop")` gives it another, as
/// [`export_app!`](crate::export_app) does.
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
/// standalone = ["host-plugin-api/standalone"]
/// ```
///
/// ```no_run
/// # mod shop { pub async fn app() -> axum::Router { axum::Router::new() } }
/// plugin_api::main!(shop::app);
/// ```
#[macro_export]
macro_rules! main {
    ($app:path $(,)?) => {
        $crate::main!($app, name = ::core::env!("CARGO_PKG_NAME"));
    };
    ($app:path, name = $name:expr $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::__private::standalone($name, ::core::env!("CARGO_PKG_VERSION"), |context| {
                $crate::__private::build($app, context)
            })
        }
    };
}

/// Serves the app until a signal says stop. 0, 2 for a wrong command line, 1 when it cannot start.
pub fn run(
    name: &'static str,
    version: &'static str,
    build: impl FnOnce(Context) -> AppFuture,
) -> ExitCode {
    let options = match Command::read(name, version) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr(options.log_level.clone(), name.to_owned());
    let served = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let served = runtime.block_on(serve(options, name, version, build));
        // A thread that the app blocks must not keep the process.
        runtime.shutdown_timeout(MOMENT);
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn Error, "Cannot start");
            ExitCode::FAILURE
        }
    }
}

/// `tracing` and `log` as lines of text.
fn log_to_stderr(directives: Directives, app: String) {
    let max = LevelFilter::from(directives.max_level());
    let filter = filter_fn(move |metadata| {
        Level::of(metadata) <= directives.level(Some(&app), metadata.target())
    });
    let subscriber = tracing_subscriber::registry()
        .with(fmt::layer().with_writer(io::stderr))
        .with(filter.with_max_level_hint(max));
    // The program has set up none before this.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
}

async fn serve(
    options: Options,
    name: &str,
    version: &'static str,
    build: impl FnOnce(Context) -> AppFuture,
) -> Result<(), BoxError> {
    let mut listeners = Vec::new();
    for address in &options.bind {
        let listener = TcpListener::bind(&**address).await;
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    let context = Context::new(Facts {
        name: name.to_owned(),
        mount: "/".to_owned(),
        version,
        generation: 1,
        config: options.config,
        previous_state: None,
        is_second: false,
    });
    let app = Arc::new(InProcessApp::start(context, build).await?);
    for listener in &listeners {
        println!("Listening on http://{}", listener.local_addr()?);
    }

    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let connections = GracefulShutdown::new();
    // Each listener holds the room for its next connection.
    let (sender, mut accepted) = mpsc::channel(listeners.len());
    for listener in listeners {
        tokio::spawn(accept(listener, sender.clone()));
    }
    drop(sender);
    let (open, mut closed) = mpsc::channel(1);
    let connect = |(stream, peer)| {
        let socket = Socket::new(stream, open.clone());
        connect(socket, peer, &app, &connections);
    };
    loop {
        tokio::select! {
            Some(next) = accepted.recv() => connect(next),
            () = next(&mut signals) => break,
        }
    }
    info!("Stopping");
    // Connections that were accepted before are served as well.
    accepted.close();
    while let Some(next) = accepted.recv().await {
        connect(next);
    }
    // Not on the thread that the hooks run on, which they may block.
    tokio::spawn(async move {
        next(&mut signals).await;
        warn!("Stopping at once");
        process::exit(1);
    });
    app.drain();
    drop(open);
    let ended = async {
        connections.shutdown().await;
        // A connection that the app took over is no longer HTTP's, and ends with its socket.
        while closed.recv().await.is_some() {}
    };
    if time::timeout(PATIENCE, ended).await.is_err() {
        warn!("Cutting off connections that did not end in time");
    }
    app.stop().await;
    Ok(())
}

/// Waits for one of two signals.
async fn next([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Accepts connections for as long as somebody takes them.
async fn accept(listener: TcpListener, accepted: mpsc::Sender<(TcpStream, SocketAddr)>) {
    // With the room for it first, a connection that is accepted is taken also when the program stops.
    while let Ok(room) = accepted.reserve().await {
        tokio::select! {
            () = accepted.closed() => return,
            next = listener.accept() => match next {
                Ok(next) => room.send(next),
                Err(error) => {
                    warn!(%error, "Cannot accept connections, trying again");
                    time::sleep(BACK_OFF).await;
                }
            },
        }
    }
}

fn connect(
    socket: Socket,
    peer: SocketAddr,
    app: &Arc<InProcessApp>,
    connections: &GracefulShutdown,
) {
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
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
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

/// How long threads that the app blocks have to end.
const MOMENT: Duration = Duration::from_secs(1);
