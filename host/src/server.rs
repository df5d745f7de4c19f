//! The life of the server: bind, load, serve, drain, stop.

mod plugins;
mod runtime;
mod sockets;

use std::{
    collections::BTreeMap,
    error, io,
    process::{self, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    signal::unix::{self, Signal, SignalKind},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::{
    plugins::{Plugins, open_store},
    runtime::Runtimes,
    sockets::{bind, raise_open_files},
};
use crate::{
    config::{Address, Config},
    control::{ControlError, ControlListener, verbs::Control},
    http::{connection::Protocol, dispatch::Dispatch, listener, trail::Trails},
    log::{self, Log, OpenError, access::AccessLog, level::Levels},
    plugin::{load, registry::Registry, reloader, store::StoreError},
    signal,
};

/// Serves until a signal says stop. The result is for `main`: 0, or 1 when the server could not
/// start. `settings` are those of `config` by key.
#[must_use]
pub fn run(config: &Config, settings: BTreeMap<String, String>) -> ExitCode {
    let log = match log::init(&config.log, config.log_level.clone()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: cannot start: {}", load::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let served = match Runtimes::start(config.threads) {
        Ok(runtimes) => {
            let serving = runtimes.serving.handle();
            let served = runtimes
                .managing
                .block_on(serve(config, settings, log, serving));
            runtimes.shut_down();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = &error as &dyn error::Error;
            tracing::error!(error, "Cannot start");
            // Who started it looks here, and the log may be elsewhere, or off.
            if config.log.log_file.is_some() || !tracing::enabled!(tracing::Level::ERROR) {
                eprintln!("error: cannot start: {}", load::chain(error));
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    config: &Config,
    settings: BTreeMap<String, String>,
    log: Log,
    serving: &Handle,
) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    // All that is done before the addresses are told is there for whoever reads them.
    let access = config.log.access_log.as_ref().map(log::open_access);
    let access = access.transpose()?;
    let Log { filter, output } = log;
    let levels = Levels::start(filter.clone());
    let outputs = access.iter().cloned().chain([output]).collect();
    let (reloader, commands) = reloader::Handle::new();
    signal::follow(levels.clone(), reloader.clone(), outputs, settings)
        .map_err(StartError::Signals)?;
    let control = config.control.as_ref();
    let control = control.map(|socket| ControlListener::bind(socket.path()));
    let control = control.transpose()?;
    let store = open_store(config)?;
    let listeners = {
        // Who serves is who waits for them.
        let _serving = serving.enter();
        bind(&config.bind)?
    };
    let captured = config.log.capture_output.then(log::capture::start);
    let _captured = captured.transpose().map_err(StartError::Capture)?;
    let _control = control.map(|control| control.start(Control { levels, reloader }));
    raise_open_files(config.limits.max_connections);
    let registry = Arc::new(Registry::default());
    let plugins = Plugins::load(config, store, filter, Arc::clone(&registry), commands).await;

    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let limits = &config.limits;
    let trails = Trails {
        debug_header: config.log.debug_header.clone(),
        access: access.map(|output| {
            let (format, skip) = (&config.log.access_log_format, &config.log.access_log_skip);
            let log = AccessLog::new(format.clone(), output, skip.clone(), cut.clone());
            Arc::new(log)
        }),
    };
    let dispatch = Dispatch::new(registry, limits, trails);
    let protocol = Protocol::new(
        limits.clone(),
        Arc::new(dispatch),
        stop.clone(),
        cut.clone(),
    );
    let protocol = Arc::new(protocol);
    let permits = Arc::new(Semaphore::new(limits.max_connections as usize));
    let connections = TaskTracker::new();
    for listener in listeners {
        let accept = listener::accept(
            listener,
            Arc::clone(&protocol),
            Arc::clone(&permits),
            connections.clone(),
            stop.clone(),
        );
        connections.spawn_on(accept, serving);
    }
    connections.close();

    let signal = signals.next().await;
    tokio::spawn(async move {
        let signal = signals.next().await;
        warn!(signal, "Stopping at once");
        process::exit(1);
    });
    let began = Instant::now();
    let open = connections.len().saturating_sub(config.bind.len());
    info!(signal, connections = open, timeout = ?config.graceful_timeout, "Stopping");
    stop.cancel();
    plugins.drain();
    if time::timeout(config.graceful_timeout, connections.wait())
        .await
        .is_err()
    {
        warn!(
            connections = connections.len(),
            "Cutting off connections that did not end in time"
        );
        cut.cancel();
        let _ = time::timeout(CUT, connections.wait()).await;
    }
    plugins
        .stop(config.graceful_timeout.saturating_sub(began.elapsed()))
        .await;
    info!(took = ?began.elapsed(), "Stopped");
    Ok(())
}

/// The signals that stop a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = unix::signal(SignalKind::terminate())?;
        let interrupt = unix::signal(SignalKind::interrupt())?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A server that could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// What plugins print cannot be captured.
    #[error("cannot capture what plugins print: see --capture-output")]
    Capture(#[source] io::Error),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The access log cannot be written.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// There are no threads.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// There is no place for private copies.
    #[error("cannot keep copies of libraries: see --state-dir")]
    Store(#[from] StoreError),
}

/// How long connections have to notice that they are cut off.
const CUT: Duration = Duration::from_secs(1);
