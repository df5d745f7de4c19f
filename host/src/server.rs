//! The life of a server: bind, start, wait for a signal, stop.

mod error;
mod plugins;
mod sockets;
mod stop;

use std::{
    collections::BTreeMap, env, ffi::OsString, io, net::TcpListener, process::ExitCode, sync::Arc,
    time::Instant,
};

use tokio::runtime::{Handle, Runtime};
use tracing::{info, warn};

pub use self::error::StartError;
use self::{
    plugins::{RunningSupervisor, WorkerMode, open_store, prepare_workers},
    sockets::{bind, raise_open_files},
    stop::{ForcedStop, QUIT, StopSignals},
};
use crate::{
    channel::{Hello, listeners},
    config::{Config, LogFormat},
    control::{self, verbs::ControlContext},
    control_socket::{ControlListener, SocketFile},
    error_chain::chain,
    folder::store::Store,
    log::{
        self, Log,
        capture::{CaptureGuard, PrintTargets},
        level::LevelHandle,
        losses::LossMonitor,
        output::Output,
    },
    orders::PROTOCOL,
    runtime::Runtimes,
    scoreboard::Scoreboard,
    settings,
    signal::{self, EarlySignals},
    supervisor::{
        self,
        handover::Handover,
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
/// `settings` are the texts of the settings in `config`, by key. `early_signals` holds the signals that have
/// arrived so far. `adopted` holds the state and the descriptors that an earlier build of this server handed over.
///
/// The caller must end the process with [`exit::end_process`](crate::exit::end_process), because threads of loaded
/// libraries may still run.
#[must_use]
pub fn run(
    config: &Config,
    settings: BTreeMap<String, String>,
    early_signals: EarlySignals,
    adopted: Option<Adopted<Handover>>,
) -> u8 {
    // An upgrade keeps the level of the earlier build, because an operator may have changed the level.
    let level = adopted.as_ref().map(|adopted| adopted.state.level.parse());
    let level = level
        .and_then(Result::ok)
        .unwrap_or(config.log_level.clone());
    let log = match log::init(config.log.options(), level) {
        Ok(log) => log,
        Err(error) => {
            terminal::print_error(format_args!("cannot start: {}", chain(&error)));
            return 1;
        }
    };
    log::output::never_block();
    let losses = log.losses.clone();
    // Install the crash handlers only if this process runs plugins, and before other threads start, because each
    // thread needs a signal stack.
    let runs_plugins = config.workers.count == 0;
    let crash_handlers = runs_plugins
        .then(|| Scoreboard::anonymous().and_then(|board| crash::install(board.activate())));
    let served = match crash_handlers
        .transpose()
        .and_then(|_| Runtimes::start(config, crash::stack::install))
    {
        Ok(runtimes) => {
            let serving = runtimes.serving.as_ref().map(Runtime::handle);
            let served = runtimes.managing.block_on(serve(
                config,
                settings,
                early_signals,
                adopted,
                log,
                serving,
            ));
            runtimes.shut_down();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error = chain(error), "Cannot start");
            // Also print the error to stderr for a person who started the server by hand, unless the log line
            // went to stderr.
            if config.log.log_file.is_some() || !tracing::enabled!(tracing::Level::ERROR) {
                terminal::print_error(format_args!("cannot start: {}", chain(error)));
            }
            1
        }
    };
    losses.finish(true);
    code
}

/// Proves to a running server that this build can take over from that server. For the proof this build parses the
/// server's arguments `args`, reads the server's state from stdin, and prints its own name and the version of its
/// worker protocol. Returns the exit code: 0 if all of these steps succeed, else 1 or 2.
#[must_use]
pub fn prove(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = [OsString::from("host")].into_iter().chain(args);
    match settings::parse(&args.collect::<Vec<_>>()) {
        Ok(settings) if settings.config.workers.count > 0 => {
            let hello = Executable::of_this_process().map(|executable| Hello {
                protocol: PROTOCOL,
                build: executable.build().to_owned(),
            });
            if let Err(error) = check_state::<Handover>() {
                let error = chain(&error);
                terminal::print_error(format_args!(
                    "the running server cannot be taken over: {error}"
                ));
                return ExitCode::FAILURE;
            }
            match hello.and_then(|hello| print_proof(&hello)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    terminal::print_error(format_args!("{error}"));
                    ExitCode::FAILURE
                }
            }
        }
        Ok(_) => {
            terminal::print_error(format_args!(
                "these are not the arguments of a host with workers"
            ));
            ExitCode::FAILURE
        }
        Err(error) => error.report(),
    }
}

/// Binds the sockets, starts the supervisor and the workers, waits for a signal, and stops.
///
/// `serving` is the runtime of the worker if the worker is a task of this process, and `None` if workers are
/// processes.
async fn serve(
    config: &Config,
    settings: BTreeMap<String, String>,
    early_signals: EarlySignals,
    adopted: Option<Adopted<Handover>>,
    log: Log,
    serving: Option<&Handle>,
) -> Result<(), StartError> {
    let mut signals = StopSignals::new().map_err(StartError::Signals)?;
    let mut server = start(config, settings, early_signals, adopted, log, serving)?;
    let signal = tokio::select! {
        signal = signals.next() => signal,
        ended = server.supervisor.wait_failed() => return Err(StartError::Supervisor(ended.err())),
    };
    server.stop(config, signal, signals).await;
    Ok(())
}

/// Binds the sockets, and starts the supervisor and the workers.
fn start(
    config: &Config,
    settings: BTreeMap<String, String>,
    early_signals: EarlySignals,
    mut adopted: Option<Adopted<Handover>>,
    log: Log,
    serving: Option<&Handle>,
) -> Result<RunningServer, StartError> {
    warn_about_variables(config);
    let (logs, losses) = open_logs(config, log)?;
    let levels = LevelHandle::start(logs.filter.clone());
    let (handle, commands) = supervisor::Handle::new();
    let outputs = logs.outputs();
    signal::handle_signals(levels.clone(), handle.clone(), outputs, settings.clone())
        .map_err(StartError::Signals)?;
    // Deliver only now, because the handlers that `handle_signals` installs must exist.
    early_signals.deliver();
    if let Some(adopted) = &adopted {
        adopted.unblock_signals().map_err(StartError::Signals)?;
    }
    // Bind after the signal handlers are installed: binding prints the addresses, and a reader of these lines may
    // send signals and requests at once.
    let (control, store, listeners) = match &mut adopted {
        Some(adopted) => resume(adopted)?,
        None => bind_all(config, &logs)?,
    };
    let store = Arc::new(store);
    if serving.is_some() {
        log::streams::replace_when_unread();
    }
    raise_open_files(config.limits.max_connections);
    // The supervisor reads the output of worker processes from their pipes. This process captures its own output
    // only if plugins run in it.
    let captures = config.log.capture_output && serving.is_some();
    let capture = captures.then(log::capture::start);
    let capture_guard = capture.transpose().map_err(StartError::Capture)?;
    let mode = match serving {
        Some(runtime) => {
            let parts = setup::worker_parts(config, listeners, logs, runtime);
            WorkerMode::Task(Box::new(parts))
        }
        None => {
            handle.follow_level(&logs.filter);
            worker_processes(config, settings, logs, &losses, listeners, adopted)?
        }
    };
    let control = control.map(|listener| {
        let handle = handle.clone();
        let context = ControlContext {
            levels,
            handle,
            plugins: config.plugins.clone(),
        };
        Arc::new(control::start(listener, context))
    });
    // Starts to watch the folder, to load apps and to accept connections.
    let supervisor =
        RunningSupervisor::start(config, Arc::clone(&store), mode, control.clone(), commands);
    Ok(RunningServer {
        supervisor,
        handle,
        control,
        store,
        losses,
        _capture_guard: capture_guard,
    })
}

/// A started server: the parts that its stop needs.
struct RunningServer {
    supervisor: RunningSupervisor,
    handle: supervisor::Handle,
    control: Option<Arc<SocketFile>>,
    store: Arc<Store>,
    losses: LossMonitor,
    /// Captures what plugins in this process print, until the server has stopped.
    _capture_guard: Option<CaptureGuard>,
}

impl RunningServer {
    /// Stops the server after `signal`: requests in flight have at most `--graceful-timeout` to end. A second signal
    /// ends the process at once, and so does [`QUIT`] as the first signal.
    async fn stop(self, config: &Config, signal: &'static str, signals: StopSignals) {
        systemd::stopping();
        let forced = ForcedStop {
            handle: self.handle,
            control: self.control,
            store: self.store,
            losses: self.losses,
        };
        // Wait for the second signal in a separate task, because the graceful stop below may take as long as
        // `--graceful-timeout`.
        let forced_stop = tokio::spawn(forced.run(signal, signals));
        if signal == QUIT {
            // Skip the graceful stop: the task ends the process.
            let _ = forced_stop.await;
        }
        let began = Instant::now();
        info!(signal, timeout = ?config.graceful_timeout, "Stopping, a second signal stops at once");
        self.supervisor.stop(config.graceful_timeout).await;
        info!(took = ?began.elapsed(), "Stopped");
    }
}

/// Opens the access log, and starts the task that reports lost log lines.
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
    // Print no addresses to stdout if the access log goes there, because the programs that read an access log
    // expect no other lines.
    let prints_addresses = !logs.access.as_ref().is_some_and(Output::is_stdout);
    let control = control.transpose()?;
    let listeners = bind(&config.bind, prints_addresses)?;
    Ok((control, store, listeners))
}

/// The control socket, the store of libraries, and the listening sockets.
type Bound = (Option<ControlListener>, Store, Vec<TcpListener>);

/// Prepares worker processes. They write to the same log and access log as this process.
fn worker_processes(
    config: &Config,
    settings: BTreeMap<String, String>,
    logs: Logs,
    losses: &LossMonitor,
    listeners: Vec<TcpListener>,
    adopted: Option<Adopted<Handover>>,
) -> Result<WorkerMode, StartError> {
    logs.outputs().iter().for_each(Output::mark_shared);
    let log = (config.log.log_format == LogFormat::Json).then_some(&logs.output);
    let access = logs.access.as_ref();
    let access = access.filter(|_| config.log.access_log_format.is_json());
    // A program that reads a JSON log expects no other lines, so printed lines must not go to these outputs.
    let json_outputs: Vec<_> = log.into_iter().chain(access).collect();
    let print_targets = PrintTargets::new(config.log.capture_output, &json_outputs, losses);
    let workers = prepare_workers(config, settings, (logs.filter, print_targets), listeners)?;
    Ok(match adopted {
        Some(adopted) => WorkerMode::Adopted(workers, Box::new(adopted)),
        None => WorkerMode::Processes(workers, config.workers.count.into()),
    })
}

/// Takes over the control socket, the store and the listening sockets of an earlier build of this server.
fn resume(adopted: &mut Adopted<Handover>) -> Result<Bound, StartError> {
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

/// Warns about environment variables that have no effect although the operator probably meant the host.
fn warn_about_variables(config: &Config) {
    for warning in &config.variable_warnings {
        warn!("{warning}");
    }
    if env::var_os("RUST_LOG").is_some() && config.log_level.to_string() == "info" {
        info!(
            "RUST_LOG has no effect on the host and its plugins: see --log-level or HOST_LOG_LEVEL"
        );
    }
}
