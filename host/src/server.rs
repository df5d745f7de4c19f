//! The life of a server: bind, start, wait for a signal, stop.

mod plugins;
pub(crate) mod runtime;
mod sockets;
mod stop;

use std::{
    collections::BTreeMap, env, error, ffi::OsString, io, net::TcpListener, path::PathBuf,
    process::ExitCode, sync::Arc, time::Instant,
};

use tokio::{
    runtime::{Handle, Runtime},
    task::JoinError,
};
use tracing::{info, warn};

use self::{
    plugins::{RunningSupervisor, WorkerMode, open_store, prepare_workers},
    runtime::Runtimes,
    sockets::{bind, raise_open_files},
    stop::{ForcedStop, QUIT, StopSignals},
};
use crate::{
    channel::Hello,
    config::{BindAddress, Config, LogFormat},
    control::{
        self,
        socket::{ControlError, ControlListener},
        verbs::Control,
    },
    error_chain::chain,
    folder::store::{Store, StoreError},
    log::{
        self, Log, OutputError, capture::PrintTargets, level::LevelHandle, losses::LossMonitor,
        output::Output,
    },
    orders::PROTOCOL,
    scoreboard::Scoreboard,
    settings,
    signal::{self, EarlySignals},
    supervisor::{
        self,
        handover::Handover,
        listeners,
        process::Executable,
        systemd,
        upgrade::{Adopted, check_state, print_proof},
    },
    terminal,
    worker::{
        crash,
        setup::{self, Logs},
    },
};

/// Serves until a signal stops the server. Returns the exit code: 0, or 1 when the server could not start.
///
/// `settings` are those of `config` by key. `early` has the signals that have arrived so far. `adopted` is what
/// an earlier build of this server has handed over.
///
/// The caller has to end the process by [`exit::leave`](crate::exit::leave), because libraries are loaded and their threads run.
#[must_use]
pub fn run(
    config: &Config,
    settings: BTreeMap<String, String>,
    early: EarlySignals,
    adopted: Option<Adopted<Handover>>,
) -> u8 {
    // After an upgrade, the level in force stays, which an operator may have changed.
    let level = adopted.as_ref().map(|adopted| adopted.state.level.parse());
    let level = level
        .and_then(Result::ok)
        .unwrap_or(config.log_level.clone());
    let log = match log::init(config.log.options(), level) {
        Ok(log) => log,
        Err(error) => {
            terminal::complain(format_args!("cannot start: {}", chain(&error)));
            return 1;
        }
    };
    log::output::never_block();
    let losses = log.losses.clone();
    // Before other threads start, because each thread needs a signal stack. Only a process that runs plugins
    // needs the handlers of crashes.
    let serves = config.processes.workers == 0;
    let watched =
        serves.then(|| Scoreboard::anonymous().and_then(|board| crash::install(board.serve())));
    let served = match watched.transpose().and_then(|_| Runtimes::start(config)) {
        Ok(runtimes) => {
            let serving = runtimes.serving.as_ref().map(Runtime::handle);
            let served = runtimes
                .managing
                .block_on(serve(config, settings, early, adopted, log, serving));
            runtimes.shut_down();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            let error = &error as &dyn error::Error;
            tracing::error!(error = chain(error), "Cannot start");
            // Also to stderr, where a person looks who has started the server by hand.
            if config.log.log_file.is_some() || !tracing::enabled!(tracing::Level::ERROR) {
                terminal::complain(format_args!("cannot start: {}", chain(error)));
            }
            1
        }
    };
    losses.finish(true);
    code
}

/// Proves to a running server that this build can take over from it. The proof is that this build accepts the
/// server's arguments `args`, reads the server's state from stdin, and prints which messages it speaks. Returns
/// the exit code.
#[must_use]
pub fn prove(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = [OsString::from("host")].into_iter().chain(args);
    match settings::parse(&args.collect::<Vec<_>>()) {
        Ok(settings) if settings.config.processes.workers > 0 => {
            let hello = Executable::of_this_process().map(|executable| Hello {
                protocol: PROTOCOL,
                build: executable.build().to_owned(),
            });
            if let Err(error) = check_state::<Handover>() {
                let error = chain(&error);
                terminal::complain(format_args!(
                    "the running server cannot be taken over: {error}"
                ));
                return ExitCode::FAILURE;
            }
            match hello.and_then(|hello| print_proof(&hello)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    terminal::complain(format_args!("{error}"));
                    ExitCode::FAILURE
                }
            }
        }
        Ok(_) => {
            terminal::complain(format_args!(
                "these are not the arguments of a host with workers"
            ));
            ExitCode::FAILURE
        }
        Err(error) => error.report(),
    }
}

/// Binds, starts the supervisor and the workers, waits for a signal, and stops.
///
/// `serving` is the runtime of the worker, if the worker is a task of this process.
async fn serve(
    config: &Config,
    settings: BTreeMap<String, String>,
    early: EarlySignals,
    mut adopted: Option<Adopted<Handover>>,
    log: Log,
    serving: Option<&Handle>,
) -> Result<(), StartError> {
    let mut signals = StopSignals::new().map_err(StartError::Signals)?;
    warn_about_variables(config);
    let (logs, losses) = open_logs(config, log)?;
    let levels = LevelHandle::start(logs.filter.clone());
    let (handle, commands) = supervisor::Handle::new();
    let outputs = logs.outputs();
    signal::handle_signals(levels.clone(), handle.clone(), outputs, settings.clone())
        .map_err(StartError::Signals)?;
    early.deliver();
    if let Some(adopted) = &adopted {
        adopted.unblock_signals().map_err(StartError::Signals)?;
    }
    // The last step before the addresses are printed: a reader of these lines may send signals and requests
    // at once.
    let (control, store, listeners) = match &mut adopted {
        Some(adopted) => resume(adopted)?,
        None => bind_all(config, &logs)?,
    };
    let store = Arc::new(store);
    if serving.is_some() {
        log::streams::replace_when_unread();
    }
    raise_open_files(config.limits.max_connections);
    let captures = config.log.capture_output && serving.is_some();
    let captured = captures.then(log::capture::start);
    let _captured = captured.transpose().map_err(StartError::Capture)?;
    let mode = match serving {
        Some(runtime) => {
            let parts = setup::parts(config, listeners, logs, runtime);
            WorkerMode::Task(Box::new(parts))
        }
        None => {
            handle.follow_level(&logs.filter);
            worker_processes(config, settings, logs, &losses, listeners, adopted)?
        }
    };
    let control = control.map(|listener| {
        let handle = handle.clone();
        let control = Control {
            levels,
            handle,
            plugins: config.plugins.clone(),
        };
        Arc::new(control::start(listener, control))
    });
    // From here on the folder is watched, apps are loaded and connections are accepted.
    let mut supervisor =
        RunningSupervisor::start(config, Arc::clone(&store), mode, control.clone(), commands);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        ended = supervisor.failed() => return Err(StartError::Supervisor(ended.err())),
    };
    systemd::stopping();
    let forced = ForcedStop {
        handle,
        control,
        store,
        losses,
    };
    // A task of its own, because the stop in good order below may take as long as `--graceful-timeout`.
    let forced = tokio::spawn(forced.run(signal, signals));
    if signal == QUIT {
        // The task ends the process.
        let _ = forced.await;
    }
    let began = Instant::now();
    info!(signal, timeout = ?config.graceful_timeout, "Stopping, a second signal stops at once");
    supervisor.stop(config.graceful_timeout).await;
    info!(took = ?began.elapsed(), "Stopped");
    Ok(())
}

/// Opens the access log, and starts the task that reports lost lines.
fn open_logs(config: &Config, log: Log) -> Result<(Logs, LossMonitor), StartError> {
    let access = config.log.access_log.as_ref();
    let access = access
        .map(|sink| log::open_access(sink.path()))
        .transpose()?;
    let Log {
        filter,
        output,
        losses,
    } = log;
    if let Some(access) = &access {
        losses.watch_access(access.clone());
    }
    tokio::spawn(losses.clone().run());
    let logs = Logs {
        filter,
        output,
        access,
    };
    Ok((logs, losses))
}

/// Binds the control socket and the addresses, and opens the store of libraries.
fn bind_all(config: &Config, logs: &Logs) -> Result<Bound, StartError> {
    let control = config.control.as_ref();
    let control = control.map(|socket| ControlListener::bind(socket.path()));
    let store = open_store(config)?;
    // Programs read an access log, and expect no other lines in it.
    let prints = !logs.access.as_ref().is_some_and(Output::is_stdout);
    Ok((control.transpose()?, store, bind(&config.bind, prints)?))
}

/// The control socket, the store of libraries, and the listening sockets.
type Bound = (Option<ControlListener>, Store, Vec<TcpListener>);

/// Prepares worker processes, which write to the same outputs as this process.
fn worker_processes(
    config: &Config,
    settings: BTreeMap<String, String>,
    logs: Logs,
    losses: &LossMonitor,
    listeners: Vec<TcpListener>,
    adopted: Option<Adopted<Handover>>,
) -> Result<WorkerMode, StartError> {
    logs.outputs().iter().for_each(Output::share);
    let log = (config.log.log_format == LogFormat::Json).then_some(&logs.output);
    let access = logs.access.as_ref();
    let access = access.filter(|_| config.log.access_log_format.is_json());
    let json: Vec<_> = log.into_iter().chain(access).collect();
    let printed = PrintTargets::new(config.log.capture_output, &json, losses);
    let workers = prepare_workers(config, settings, (logs.filter, printed), listeners)?;
    Ok(match adopted {
        Some(adopted) => WorkerMode::Adopted(workers, Box::new(adopted)),
        None => WorkerMode::Processes(workers, config.processes.workers.into()),
    })
}

/// Takes over what an earlier build of this server had bound and opened.
fn resume(
    adopted: &mut Adopted<Handover>,
) -> Result<(Option<ControlListener>, Store, Vec<TcpListener>), StartError> {
    let Adopted { state, descriptors } = adopted;
    let control = state.control.take();
    let control = control.map(|control| ControlListener::resume(control, descriptors));
    let control = control.transpose().map_err(StartError::Resume)?;
    let store = Store::resume(state.store.clone(), descriptors).map_err(StartError::Resume)?;
    let numbers = state.listeners.iter();
    let listeners = numbers.map(|&number| listeners::receive(descriptors.take(number)?));
    let listeners = listeners.collect::<io::Result<_>>();
    Ok((control, store, listeners.map_err(StartError::Resume)?))
}

/// Warns about environment variables that were probably meant for the host and have no effect.
fn warn_about_variables(config: &Config) {
    for near_miss in &config.near_misses {
        warn!("{near_miss}");
    }
    if env::var_os("RUST_LOG").is_some() && config.log_level.to_string() == "info" {
        info!(
            "RUST_LOG has no effect on the host and its plugins: see --log-level or HOST_LOG_LEVEL"
        );
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: BindAddress,
        /// The system's error.
        source: io::Error,
    },
    /// The output of plugins cannot be captured.
    #[error("cannot capture what plugins print; see --capture-output")]
    Capture(#[source] io::Error),
    /// The control socket cannot be bound.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The plugins folder cannot be read.
    #[error("cannot read the plugins folder {}, expected a folder that is there; see --plugins", folder.display())]
    Folder {
        /// The path of the folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error(transparent)]
    Log(#[from] OutputError),
    /// The system gives no threads.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The program of this process cannot be started again.
    #[error("cannot start worker processes: is /proc mounted?")]
    Executable(#[source] io::Error),
    /// The sockets and folders of the earlier build cannot be used.
    #[error("cannot go on with the sockets and folders of the build before")]
    Resume(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The supervisor has panicked.
    #[error("the supervisor failed")]
    Supervisor(#[source] Option<JoinError>),
    /// The folder for private copies cannot be used.
    #[error("cannot keep copies of libraries; see --state-dir")]
    Store(#[from] StoreError),
}
