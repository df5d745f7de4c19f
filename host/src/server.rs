//! The life of the server: bind, load, serve, drain, stop.

mod plugins;
pub(crate) mod runtime;
mod sockets;

use std::{
    collections::BTreeMap,
    env, error,
    ffi::OsString,
    io,
    net::TcpListener,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{self, Signal, SignalKind},
    task::JoinError,
};
use tracing::{debug, info, warn};

use self::{
    plugins::{Kind, Running, open_store, processes},
    runtime::Threads,
    sockets::{bind, raise_open_files},
};
use crate::{
    channel::Hello,
    config::{BindAddress, Config, LogFormat},
    control::{ControlError, ControlListener, verbs::Control},
    error_chain::chain,
    exit,
    folder::store::{Store, StoreError},
    log::{self, Log, OpenError, capture::Printed, level::Levels, output::Output},
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
        upgrade::{Adopted, print_proof},
    },
    terminal,
    worker::{
        crash,
        setup::{self, Logs},
    },
};

/// Serves until a signal says stop. The result is the exit code: 0, or 1 when the server could not
/// start. `settings` are those of `config` by key; `early` has the signals that have arrived so far.
///
/// The process must end by [`exit::leave`] then: libraries are loaded, and their threads run.
#[must_use]
pub fn run(
    config: &Config,
    settings: BTreeMap<String, String>,
    early: EarlySignals,
    adopted: Option<Adopted<Handover>>,
) -> u8 {
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
    log::output::never_wait();
    let losses = log.losses.clone();
    // Before there are other threads. A supervisor runs no plugin, and needs no record.
    let serves = config.processes.workers == 0;
    let watched =
        serves.then(|| Scoreboard::anonymous().and_then(|board| crash::install(board.serve())));
    let served = match watched.transpose().and_then(|_| Threads::start(config)) {
        Ok(threads) => {
            let serving = threads.serving.as_ref().map(Runtime::handle);
            let served = threads
                .managing
                .block_on(serve(config, settings, early, adopted, log, serving));
            threads.shut_down();
            served
        }
        Err(error) => Err(StartError::Runtime(error)),
    };
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            let error = &error as &dyn error::Error;
            tracing::error!(error = chain(error), "Cannot start");
            // Who started it looks here, and the log may be elsewhere, or off.
            if config.log.log_file.is_some() || !tracing::enabled!(tracing::Level::ERROR) {
                terminal::complain(format_args!("cannot start: {}", chain(error)));
            }
            1
        }
    };
    losses.finish(true);
    code
}

/// Says that this build can take over from one that runs: it reads the same configuration, and speaks
/// the same messages. `args` are those of the server.
#[must_use]
pub fn prove(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = [OsString::from("host")].into_iter().chain(args);
    match settings::parse(&args.collect::<Vec<_>>()) {
        Ok(settings) if settings.config.processes.workers > 0 => {
            let hello = Executable::of_this_process().map(|executable| Hello {
                protocol: PROTOCOL,
                build: executable.build().to_owned(),
            });
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

async fn serve(
    config: &Config,
    settings: BTreeMap<String, String>,
    early: EarlySignals,
    mut adopted: Option<Adopted<Handover>>,
    log: Log,
    serving: Option<&Handle>,
) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    name_what_has_no_effect(config);
    // All that is done before the addresses are told is there for whoever reads them.
    let access = config
        .log
        .access_log
        .as_ref()
        .map(|sink| log::open_access(sink.path()));
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
    // Programs read an access log: nothing else may be between its lines.
    let prints = !access.as_ref().is_some_and(Output::is_stdout);
    let logs = Logs {
        filter,
        output,
        access,
    };
    let levels = Levels::start(logs.filter.clone());
    let (handle, commands) = supervisor::Handle::new();
    let outputs = logs.outputs();
    signal::follow(levels.clone(), handle.clone(), outputs, settings.clone())
        .map_err(StartError::Signals)?;
    early.deliver();
    if let Some(adopted) = &adopted {
        adopted.unblock_signals().map_err(StartError::Signals)?;
    }
    let (control, store, listeners) = match &mut adopted {
        Some(adopted) => resume(adopted)?,
        None => {
            let control = config.control.as_ref();
            let control = control.map(|socket| ControlListener::bind(socket.path()));
            let store = open_store(config)?;
            (control.transpose()?, store, bind(&config.bind, prints)?)
        }
    };
    let store = Arc::new(store);
    if serving.is_some() {
        log::streams::keep_harmless();
    }
    raise_open_files(config.limits.max_connections);
    let captures = config.log.capture_output && serving.is_some();
    let captured = captures.then(log::capture::start);
    let _captured = captured.transpose().map_err(StartError::Capture)?;
    let kind = match serving {
        Some(threads) => {
            let parts = setup::parts(config, listeners, logs, threads);
            Kind::Task(Box::new(parts))
        }
        None => {
            handle.follow_level(&logs.filter);
            // Workers write lines to the same places.
            logs.outputs().iter().for_each(Output::share);
            let log = (config.log.log_format == LogFormat::Json).then_some(&logs.output);
            let access = logs.access.as_ref();
            let access = access.filter(|_| config.log.access_log_format.is_json());
            let json: Vec<_> = log.into_iter().chain(access).collect();
            let printed = Printed::new(config.log.capture_output, &json, &losses);
            let log = (logs.filter, printed);
            let processes = processes(config, settings, log, listeners)?;
            match adopted {
                Some(adopted) => Kind::Adopted(processes, Box::new(adopted)),
                None => Kind::Processes(processes, config.processes.workers.into()),
            }
        }
    };
    let control = control.map(|control| {
        let handle = handle.clone();
        Arc::new(control.start(Control {
            levels,
            handle,
            plugins: config.plugins.clone(),
        }))
    });
    let mut running = Running::start(config, Arc::clone(&store), kind, control.clone(), commands);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        ended = running.failed() => return Err(StartError::Supervisor(ended.err())),
    };
    systemd::stopping();
    let left_behind = (control, store);
    let at_once = tokio::spawn(async move {
        let signal = match signal {
            QUIT => signal,
            _ => signals.second().await,
        };
        warn!(signal, "Stopping at once");
        handle.kill().await;
        let (control, store) = left_behind;
        exit::leave(1, move || {
            if let Some(control) = control {
                control.remove();
            }
            losses.finish(false);
            // The next host that starts removes what is left of the copies.
            let _ = store.remove();
        });
    });
    if signal == QUIT {
        // The task ends the process.
        let _ = at_once.await;
    }
    let began = Instant::now();
    info!(signal, timeout = ?config.graceful_timeout, "Stopping, a second signal stops at once");
    running.stop(config.graceful_timeout).await;
    info!(took = ?began.elapsed(), "Stopped");
    Ok(())
}

/// Goes on with what an earlier image of this process had bound and opened.
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

/// Variables that somebody probably set for the host, and that it does not know.
fn name_what_has_no_effect(config: &Config) {
    for near_miss in &config.near_misses {
        warn!("{near_miss}");
    }
    if env::var_os("RUST_LOG").is_some() && config.log_level.to_string() == "info" {
        info!(
            "RUST_LOG has no effect on the host and its plugins: see --log-level or HOST_LOG_LEVEL"
        );
    }
}

/// The signals that stop a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = unix::signal(SignalKind::terminate())?;
        let interrupt = unix::signal(SignalKind::interrupt())?;
        let quit = unix::signal(SignalKind::quit())?;
        Ok(Self {
            terminate,
            interrupt,
            quit,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => QUIT,
        }
    }

    /// The next signal that is meant as a second one, and not an echo of the first: timeout(1), npm
    /// and a terminal send one signal to a process and once more to its group.
    async fn second(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.next().await;
            if signal == QUIT || first.elapsed() >= ECHO {
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
        address: BindAddress,
        /// What the system says.
        source: io::Error,
    },
    /// What plugins print cannot be captured.
    #[error("cannot capture what plugins print; see --capture-output")]
    Capture(#[source] io::Error),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The plugins folder is none.
    #[error("cannot read the plugins folder {}, expected a folder that is there; see --plugins", folder.display())]
    Folder {
        /// What should be the folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// There are no threads.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The program of this process cannot be started again.
    #[error("cannot start worker processes: is /proc mounted?")]
    Executable(#[source] io::Error),
    /// What an earlier image of this process handed over cannot be used.
    #[error("cannot go on with the sockets and folders of the build before")]
    Resume(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The supervisor has ended by a fault of its own.
    #[error("the supervisor failed")]
    Supervisor(#[source] Option<JoinError>),
    /// There is no place for private copies.
    #[error("cannot keep copies of libraries; see --state-dir")]
    Store(#[from] StoreError),
}

/// The signal that stops a server at once.
const QUIT: &str = "SIGQUIT";

/// How soon after the first signal another one is taken for the same.
const ECHO: Duration = Duration::from_millis(200);
