//! Runs an app as a program of its own, without the server. The macro [`main!`](crate::main) calls [`run`].

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
    guest::{AppFuture, ContextData, InProcessApp},
    level::Directives,
};

/// Defines a `main` function that runs an app as a program, with its own HTTP server and log.
///
/// The program has three options, with the same syntax as the server's options:
///
/// - `--bind ADDRESS`: the default is 127.0.0.1:8000; with port 0, the system chooses a free port.
/// - `--log-level LEVEL`: the default is info.
/// - `--config FILE`: the server's configuration file. The program reads only `bind`, `log-level` and the `config` in
///   the table `[app.NAME]`.
///
/// The environment variables `HOST_BIND`, `HOST_LOG_LEVEL` and `HOST_CONFIG` replace missing options.
///
/// The program serves HTTP/1.1 and HTTP/2, prints its addresses on stdout, and logs to stderr. Unlike the server, it
/// does not log the key-value pairs of the crate `log`.
///
/// On SIGTERM or SIGINT, the program stops gracefully: it waits for requests, and for connections that the app has
/// taken over, such as WebSockets, for up to 30 s. On a second signal it ends at once.
///
/// The app has the name of its crate. `main!(shop::app, name = "shop")` sets another name, as in
/// [`export_app!`](crate::export_app).
///
/// The macro needs the feature `standalone`. The crate must be both a library and a program: `src/lib.rs` contains the
/// app's function and `export_app!`, and `src/main.rs` contains this macro. Build the plugin without the feature, so
/// that the library does not contain a server:
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

/// Serves the app until a signal stops the program. Returns the exit code: 0 after a stop, 1 if the app or the server
/// cannot start, 2 if an option, a variable or the configuration file is wrong.
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
    let result = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(serve(options, name, version, build));
        // Dropping the runtime would wait without a limit for a thread that the app blocks.
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn Error, "Cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Writes the events of `tracing` and the records of `log` to stderr, as lines of text.
fn log_to_stderr(directives: Directives, app: String) {
    // With the hint, callsites of more verbose levels skip the filter.
    let max_level = LevelFilter::from(directives.max_level());
    let filter = filter_fn(move |metadata| {
        Level::of(metadata) <= directives.level(Some(&app), metadata.target())
    });
    let subscriber = tracing_subscriber::registry()
        .with(fmt::layer().with_writer(io::stderr))
        .with(filter.with_max_level_hint(max_level));
    // Both calls fail only if a logger is already installed. The program has installed none before, so the errors are
    // ignored.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
}

/// Serves the app until the first signal, and then stops the app. Returns an error if the app or the server cannot
/// start.
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
    let context = Context::new(ContextData {
        name: name.to_owned(),
        mount: "/".to_owned(),
        version,
        generation: 1,
        config: options.config,
        previous_state: None,
        has_predecessor: false,
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
    // One slot for each listener, because each listener reserves a slot before it accepts a connection.
    let (sender, mut accepted) = mpsc::channel(listeners.len());
    for listener in listeners {
        tokio::spawn(accept(listener, sender.clone()));
    }
    // Only the listeners own senders now, so the channel ends when all listeners have ended.
    drop(sender);
    // Every socket owns a clone of `open_sockets`. No message is ever sent: `all_closed` ends when no socket is open.
    let (open_sockets, mut all_closed) = mpsc::channel(1);
    let start_connection = |(stream, peer)| {
        let socket = Socket::new(stream, open_sockets.clone());
        spawn_connection(socket, peer, &app, &connections);
    };
    loop {
        tokio::select! {
            Some(connection) = accepted.recv() => start_connection(connection),
            () = wait_for_signal(&mut signals) => break,
        }
    }
    info!("Stopping");
    // Closing the channel stops the listeners. Connections that they have already accepted are still served.
    accepted.close();
    while let Some(connection) = accepted.recv().await {
        start_connection(connection);
    }
    // A task of its own, because the shutdown hooks run on this thread and may block it.
    tokio::spawn(async move {
        wait_for_signal(&mut signals).await;
        warn!("Stopping at once");
        process::exit(1);
    });
    app.drain();
    drop(open_sockets);
    let connections_ended = async {
        connections.shutdown().await;
        // hyper no longer knows the connections that the app has taken over. They end when their sockets are dropped.
        while all_closed.recv().await.is_some() {}
    };
    if time::timeout(DRAIN_TIMEOUT, connections_ended)
        .await
        .is_err()
    {
        warn!("Cutting off connections that did not end in time");
    }
    app.stop().await;
    Ok(())
}

/// Waits for one of the two signals.
async fn wait_for_signal([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Accepts connections and sends them to `accepted`, until the receiver closes the channel.
async fn accept(listener: TcpListener, accepted: mpsc::Sender<(TcpStream, SocketAddr)>) {
    // A slot in the channel is reserved before a connection is accepted. A connection can therefore always be sent,
    // even if the channel is closed in between.
    while let Ok(permit) = accepted.reserve().await {
        tokio::select! {
            () = accepted.closed() => return,
            result = listener.accept() => match result {
                Ok(connection) => permit.send(connection),
                Err(error) => {
                    warn!(%error, "Cannot accept connections, trying again");
                    time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
}

/// Starts a task that serves HTTP on `socket`.
fn spawn_connection(
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

/// The pause after a failed `accept`. Without the pause, an error such as "too many open files" would cause a busy
/// loop.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The time after a signal in which connections may finish their requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The time in which blocked threads of the runtime may end after the app has stopped.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
