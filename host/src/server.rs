//! The life of the server: bind, load, serve, drain, stop.

mod plugins;
mod runtime;
mod sockets;

use std::{
    collections::BTreeMap,
    error, io,
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
use tracing::{debug, info, warn};

use self::{
    plugins::{Plugins, open_store},
    runtime::Runtimes,
    sockets::{bind, raise_open_files},
};
use crate::{
    config::{Address, Config},
    control::{ControlError, ControlListener, verbs::Control},
    exit,
    http::{connection::Protocol, dispatch::Dispatch, listener, trail::Trails},
    log::{self, Log, OpenError, access::AccessLog, level::Levels},
    plugin::{load, registry::Registry, reloader, store::StoreError},
    signal::{self, EarlySignals},
    terminal,
};

/// Serves until a signal says stop. The result is the exit code: 0, or 1 when the server could not
/// start. `settings` are those of `config` by key; `early` has the signals that have arrived so far.
///
/// The process must end by [`exit::leave`] then: libraries are loaded, and their threads run.
#[must_use]
pub fn run(config: &Config, settings: BTreeMap<String, String>, early: EarlySignals) -> u8 {
    let log = match log::init(&config.log, config.log_level.clone()) {
        Ok(log) => log,
        Err(error) => {
            terminal::complain(format_args!("cannot start: {}", load::chain(&error)));
            return 1;
        }
    };
    let served = match Runtimes::start(config.threads) {
        Ok(runtimes) => {
            let serving = runtimes.serving.handle();
            let served = runtimes
                .managing
                .block_on(serve(config, settings, early, log, serving));
            runtimes.shut_down();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    match served {
        Ok(()) => 0,
        Err(error) => {
            let error = &error as &dyn error::Error;
            tracing::error!(error, "Cannot start");
            // Who started it looks here, and the log may be elsewhere, or off.
            if config.log.log_file.is_some() || !tracing::enabled!(tracing::Level::ERROR) {
                terminal::complain(format_args!("cannot start: {}", load::chain(error)));
            }
            1
        }
    }
}

async fn serve(
    config: &Config,
    settings: BTreeMap<String, String>,
    early: EarlySignals,
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
    early.deliver();
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
    let control = control.map(|control| control.start(Control { levels, reloader }));
    raise_open_files(config.limits.max_connections);
    let registry = Arc::new(Registry::default());
    let (plugins, are_ready) =
        Plugins::load(config, store, filter, Arc::clone(&registry), commands);
    // Clients wait in the kernel's queue meanwhile. One plugin that is slow to start must not keep
    // them there, nor may it delay a stop.
    let stopped_early = tokio::select! {
        _ = time::timeout(config.ready_timeout, are_ready) => None,
        signal = signals.next() => Some(signal),
    };

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

    let signal = match stopped_early {
        Some(signal) => signal,
        None => signals.next().await,
    };
    let left_behind = (control, plugins.store());
    tokio::spawn(async move {
        let signal = signals.second().await;
        warn!(signal, "Stopping at once");
        let (control, store) = left_behind;
        exit::leave(1, move || {
            drop(control);
            // The next host that starts removes what is left of the copies.
            let _ = store.remove();
        });
    });
    let began = Instant::now();
    let open = connections.len().saturating_sub(config.bind.len());
    info!(signal, connections = open, timeout = ?config.graceful_timeout, "Stopping, a second signal stops at once");
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

    /// The next signal that is meant as a second one, and not an echo of the first: timeout(1), npm
    /// and a terminal send one signal to a process and once more to its group.
    async fn second(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.next().await;
            if first.elapsed() >= ECHO {
                return signal;
            }
            debug!(
                signal,
                "Taken for the signal before, as it came within 200 ms of that"
            );
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

/// How soon after the first signal another one is taken for the same.
const ECHO: Duration = Duration::from_millis(200);

/// How long connections have to notice that they are cut off.
const CUT: Duration = Duration::from_secs(1);
