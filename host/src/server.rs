//! The life of the server: bind, load, serve, drain, stop.

mod plugins;
mod runtime;
mod sockets;

use std::{
    collections::BTreeMap,
    error, io,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    signal::unix::{self, Signal, SignalKind},
};
use tracing::{debug, info, warn};

use self::{
    plugins::{Running, open_store},
    runtime::Runtimes,
    sockets::{bind, raise_open_files},
};
use crate::{
    config::{Address, Config},
    control::{ControlError, ControlListener, verbs::Control},
    exit,
    folder::store::{Store, StoreError},
    http::{dispatch::Dispatch, trail::Trails},
    log::{self, Log, OpenError, access::AccessLog, filter::Filter, level::Levels, output::Output},
    scoreboard::Scoreboard,
    signal::{self, EarlySignals},
    supervisor, terminal,
    worker::{
        crash,
        life::{self, Settings},
        load,
        registry::Registry,
        serving::{Serving, Tokens},
    },
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
    log::output::never_wait();
    let losses = log.losses.clone();
    // Before there are other threads.
    let watched = Scoreboard::anonymous().and_then(|board| crash::install(board.serve()));
    let served = match watched.and_then(|()| Runtimes::start(config.threads)) {
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
    let code = match served {
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
    };
    losses.finish(true);
    code
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
    let Log {
        filter,
        output,
        losses,
    } = log;
    if let Some(access) = &access {
        losses.watch_access(access.clone());
    }
    tokio::spawn(losses.clone().run());
    let levels = Levels::start(filter.clone());
    let outputs: Vec<_> = access.iter().cloned().chain([output]).collect();
    let (handle, commands) = supervisor::Handle::new();
    signal::follow(levels.clone(), handle.clone(), outputs.clone(), settings)
        .map_err(StartError::Signals)?;
    early.deliver();
    // All handlers of the host's are set.
    crash::kept::keep();
    let control = config.control.as_ref();
    let control = control.map(|socket| ControlListener::bind(socket.path()));
    let control = control.transpose()?;
    let store = open_store(config)?;
    // Programs read an access log: nothing else may be between its lines.
    let prints = !access.as_ref().is_some_and(Output::is_stdout);
    let listeners = bind(&config.bind, prints)?;
    let captured = config.log.capture_output.then(log::capture::start);
    let _captured = captured.transpose().map_err(StartError::Capture)?;
    let control = control.map(|control| control.start(Control { levels, handle }));
    raise_open_files(config.limits.max_connections);
    let worker = worker_parts(config, listeners, access, filter, outputs, &store, serving);
    let running = Running::start(config, store, worker, commands);

    let signal = signals.next().await;
    let left_behind = (control, running.store());
    tokio::spawn(async move {
        let signal = signals.second().await;
        warn!(signal, "Stopping at once");
        let (control, store) = left_behind;
        exit::leave(1, move || {
            drop(control);
            losses.finish(false);
            // The next host that starts removes what is left of the copies.
            let _ = store.remove();
        });
    });
    let began = Instant::now();
    info!(signal, timeout = ?config.graceful_timeout, "Stopping, a second signal stops at once");
    running.stop(config.graceful_timeout).await;
    info!(took = ?began.elapsed(), "Stopped");
    Ok(())
}

/// What a worker in this process works with.
fn worker_parts(
    config: &Config,
    listeners: Vec<TcpListener>,
    access: Option<Output>,
    filter: Filter,
    outputs: Vec<Output>,
    store: &Store,
    serving: &Handle,
) -> life::Parts {
    let tokens = Tokens::default();
    let trails = Trails {
        debug_header: config.log.debug_header.clone(),
        access: access.map(|output| {
            let (format, skip) = (&config.log.access_log_format, &config.log.access_log_skip);
            let log = AccessLog::new(format.clone(), output, skip.clone(), tokens.cut.clone());
            Arc::new(log)
        }),
    };
    let registry = Arc::new(Registry::default());
    let dispatch = Dispatch::new(Arc::clone(&registry), &config.limits, trails);
    life::Parts {
        settings: Settings::of(config),
        registry,
        filter,
        outputs,
        copies: store.folder().to_owned(),
        serving: Serving::new(listeners, serving.clone(), dispatch, &config.limits, tokens),
    }
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
