//! The life of the server: bind, load, serve, drain, stop.

use std::{
    error,
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs},
    process::{self, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Builder,
    signal::unix::{self, Signal, SignalKind},
    sync::{Semaphore, mpsc, oneshot},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::{Address, Config, Watch},
    control::{ControlError, ControlListener, verbs::Control},
    http::{connection::Protocol, dispatch::Dispatch, listener, trail::Trails},
    log::{self, Log, OpenError, access::AccessLog, filter::Filter, level::Levels},
    plugin::{
        probation::Terms,
        quarantine::PanicLimit,
        registry::Registry,
        reloader::{self, Options, Reloader},
        store::{Store, StoreError},
        watcher::{WatchOptions, Watcher},
    },
    signal,
};

/// Serves until a signal says stop. The result is for `main`: 0, or 1 when the server could not
/// start.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let log = match log::init(&config.log, config.log_level.clone()) {
        Ok(log) => log,
        Err(error) => {
            let cause = error::Error::source(&error);
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("error: cannot start: {error}{cause}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(config.threads.into())
        .thread_name("host")
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(serve(config, log));
            // A thread that hangs, in a plugin or on a file system, must not keep the process.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "Cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &Config, log: Log) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    // All that is done before the addresses are told is there for whoever reads them.
    let access = config.log.access_log.as_ref().map(log::open_access);
    let access = access.transpose()?;
    let Log { filter, output } = log;
    let levels = Levels::start(filter.clone());
    let outputs = access.iter().cloned().chain([output]).collect();
    signal::follow(levels.clone(), outputs).map_err(StartError::Signals)?;
    let control = config.control.as_ref();
    let control = control.map(|socket| ControlListener::bind(socket.path()));
    let control = control.transpose()?;
    let listeners = bind(&config.bind)?;
    let captured = config.log.capture_output.then(log::capture::start);
    let _captured = captured.transpose().map_err(StartError::Capture)?;
    let (reloader, commands) = reloader::Handle::new();
    let _control = control.map(|control| control.start(Control { levels, reloader }));
    raise_open_files(config.limits.max_connections);
    let registry = Arc::new(Registry::default());
    let plugins = Plugins::load(config, filter, Arc::clone(&registry), commands).await?;

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
    let max_headers = limits.max_headers.into();
    let dispatch = Dispatch::new(registry, max_headers, limits.max_body_size, trails);
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
        connections.spawn(accept);
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

/// Binds every address, and prints each address once, before anything else.
fn bind(addresses: &[Address]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    let mut bound = String::new();
    for address in addresses {
        let failed = |source| StartError::Bind {
            address: address.clone(),
            source,
        };
        for socket in address.to_socket_addrs().map_err(failed)? {
            let listener = listen(socket).map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            bound.push_str(&format!("Listening on http://{local}\n"));
            listeners.push(listener);
        }
    }
    // Whoever started the server may not want to know.
    let _ = io::stdout().write_all(bound.as_bytes());
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Else an address could not be used for a minute after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the limit on open files as far as the system allows, if the connections need it.
fn raise_open_files(connections: u32) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(connections) + OTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = rustix::process::Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, wanted, "Cannot raise the limit on open files");
    } else if possible < wanted {
        warn!(
            limit = possible,
            wanted, "The limit on open files (ulimit -n) is lower than --max-connections needs"
        );
    }
}

/// The plugins of a server that runs.
struct Plugins {
    stop: oneshot::Sender<Duration>,
    reloader: tokio::task::JoinHandle<()>,
    store: Arc<Store>,
}

impl Plugins {
    /// Starts to follow the plugins folder. Returns when what is there serves, or has had the time
    /// to.
    async fn load(
        config: &Config,
        filter: Filter,
        registry: Arc<Registry>,
        commands: mpsc::Receiver<reloader::Command>,
    ) -> Result<Self, StartError> {
        if !config.plugins.exists() {
            warn!(folder = %config.plugins.display(), "The plugins folder is missing, making one");
        }
        let store = Arc::new(Store::open(&config.state_dir())?);
        let (changes, changed) = mpsc::channel(64);
        let (retries, retried) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet: config.quiet_time,
            rescan: config.rescan,
            events: config.reload.watch == Watch::Events,
        };
        tokio::spawn(Watcher::new(config.plugins.clone(), options, changes, retried).run());

        let reload = &config.reload;
        let options = Options {
            mounts: config.mount.clone(),
            apps: config.apps.clone(),
            init_timeout: config.init_timeout,
            handover_timeout: reload.handover_timeout,
            graceful_timeout: config.graceful_timeout,
            worker_threads: config.worker_threads.into(),
            panic_limit: PanicLimit {
                panics: config.panic_limit,
                window: config.panic_window,
            },
            probation: reload.auto_rollback.then_some(Terms {
                time: reload.probation,
                failures: reload.rollback_failures,
                percent: reload.rollback_percent,
            }),
        };
        let reloader = Reloader::new(options, Arc::clone(&store), registry, filter, retries);
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let reloader = tokio::spawn(reloader.run(changed, commands, ready, stopped));
        // Clients wait in the kernel's queue meanwhile. One plugin that is slow to start must not
        // keep them there.
        let _ = time::timeout(FIRST_LOADS, is_ready).await;
        Ok(Self {
            stop,
            reloader,
            store,
        })
    }

    /// Ends all apps, giving the requests in them at most `patience`.
    async fn stop(self, patience: Duration) {
        let _ = self.stop.send(patience);
        let _ = self.reloader.await;
        if let Err(error) = self.store.remove() {
            warn!(
                error = &error as &dyn std::error::Error,
                "Cannot remove the copies of libraries"
            );
        }
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

/// How many connections the kernel may keep for us: as many as it lets us have (listen(2)).
const BACKLOG: u32 = 4096;

/// How many files are open beside connections: libraries, logs, runtimes.
const OTHER_FILES: u64 = 256;

/// How long the first loads may keep clients waiting.
const FIRST_LOADS: Duration = Duration::from_secs(2);

/// How long connections have to notice that they are cut off.
const CUT: Duration = Duration::from_secs(1);
