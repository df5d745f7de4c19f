//! The event loop of a session: handles keys, signals, changed files, the end of rounds and events of the server.

mod error;
mod results;
mod start;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    future::pending,
    io,
    path::PathBuf,
    pin::Pin,
    process::ExitStatus,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    DevArgs,
    cargo::CargoEvent,
    control,
    inputs::BuildInputs,
    keys::{self, KeyCommand},
    project::Project,
    report::{self, print_line},
    round::{LibraryStamp, Round, RoundOutcome},
    scheduler::BuildScheduler,
    server::{DevServer, ServerEvent},
    settings::{self, SessionPaths},
    state::{AssetChanges, SessionPhase, SessionState},
    watch::{FileChanges, SourceWatcher},
};
use crate::error_chain::chain;

pub(super) use self::error::SessionError;

/// Runs a session until the author or a signal ends it. `server_flags` are the server's options that the command line
/// sets, as `--OPTION=VALUE`.
///
/// # Errors
///
/// Fails when the session cannot start, or when the server ends soon after a start.
pub(super) async fn run(args: &DevArgs, server_flags: &[OsString]) -> Result<(), SessionError> {
    let mut session = Session::start(args, server_flags).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SessionError::System)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SessionError::System)?;
    let mut keys = keys::start_reading();
    let mut changes = FileChanges::default();
    session.request_build(BTreeSet::new(), Instant::now());
    loop {
        tokio::select! {
            // Poll the signals first: a burst of file changes or of Cargo's lines must not delay the end.
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some(key) = keys.recv() => match key {
                KeyCommand::Quit => break,
                key => session.handle_key(key).await,
            },
            // `changes` is declared outside of the loop: if another branch completes first and cancels this wait, the
            // changes that were collected so far stay in `changes`.
            () = session.watcher.collect(&mut changes) => {
                session.handle_changes(std::mem::take(&mut changes));
            }
            (build, outcome) = session.round.next() => session.round_ended(build, outcome),
            event = session.server.next() => match event {
                ServerEvent::Ended(status) => session.restart_server(status)?,
                // Store only the first origin, the one of the first `--bind`.
                ServerEvent::Listening(origin) => _ = session.origin.get_or_insert(origin),
            },
        }
    }
    session.end().await;
    Ok(())
}

/// A running session.
struct Session {
    args: DevArgs,
    /// The paths that the author named.
    paths: Vec<PathBuf>,
    server_paths: SessionPaths,
    /// The temporary folders that contain `server_paths`. They are removed when the session ends.
    _folders: [TempDir; 2],
    server: DevServer,
    /// The arguments of the server, for starting the server again.
    server_args: Vec<OsString>,
    /// The control socket of the server.
    control: PathBuf,
    /// The first origin that the server listens at, or `None` until the server listens.
    origin: Option<String>,
    /// Whether the addresses of the apps have been printed.
    has_printed_addresses: bool,
    /// The author's configuration file of the server.
    authors_config: Option<PathBuf>,
    projects: Vec<Project>,
    /// Whether a manifest has changed since `projects` were read. The next round then reads them again.
    has_manifest_changed: bool,
    /// The files that builds read. Shared with `watcher`.
    inputs: Arc<Mutex<BuildInputs>>,
    watcher: SourceWatcher,
    scheduler: BuildScheduler,
    round: CurrentRound,
    /// Whether the running build compiles dependencies and has not reached the author's crates yet. The round's
    /// callback sets the cell while the event loop polls the round.
    compiles_dependencies: Rc<Cell<bool>>,
    /// The libraries in the plugins folder, by file name.
    installed: BTreeMap<String, LibraryStamp>,
    /// The libraries in the plugins folder that do not start: file name and reason.
    failed_starts: BTreeMap<String, String>,
    /// Publishes the state to the server.
    state: watch::Sender<SessionState>,
    /// The time of the first change that the running build covers.
    changed_at: Instant,
    /// The start of the running build, as a `SystemTime` because the modification times of files are compared with it.
    build_started: SystemTime,
}

/// The running round with the number of its build, or `None` while no round runs.
#[derive(Default)]
struct CurrentRound(Option<(u64, RoundFuture)>);

type RoundFuture = Pin<Box<dyn Future<Output = RoundOutcome>>>;

impl CurrentRound {
    /// Waits for the end of the running round, and returns the build's number and the outcome. Never returns while no
    /// round runs. Cancel-safe: dropping this future does not stop the round.
    async fn next(&mut self) -> (u64, RoundOutcome) {
        match &mut self.0 {
            Some((build, round)) => {
                let ended = (*build, round.await);
                self.0 = None;
                ended
            }
            None => pending().await,
        }
    }
}

impl Session {
    /// Reports changed files to the scheduler, and starts the build that the scheduler decides on. First cancels the
    /// running round if the scheduler decides so. `files` is empty if the author has requested a build.
    fn request_build(&mut self, files: BTreeSet<PathBuf>, changed_at: Instant) {
        self.has_manifest_changed |= files.iter().any(|file| file.ends_with("Cargo.toml"));
        // While a round runs, keep the time of the first change, because the author has waited since then.
        if self.round.0.is_none() {
            self.changed_at = changed_at;
        }
        let compiles_dependencies = self.compiles_dependencies.get();
        let Some(start) = self.scheduler.files_changed(files, compiles_dependencies) else {
            return;
        };
        self.compiles_dependencies.set(false);
        if start.cancel.is_some() {
            // Dropping the future of the round kills Cargo.
            self.round.0 = None;
        }
        self.build_started = SystemTime::now();
        // An empty list makes the round read the projects again, which takes some 100 ms.
        let projects = if self.has_manifest_changed {
            Vec::new()
        } else {
            self.projects.clone()
        };
        let round = Round {
            paths: self.paths.clone(),
            projects,
            cargo_options: cargo_options(&self.args),
            plugins: self.server_paths.plugins.clone(),
            control: self.control.clone(),
            installed: self.installed.clone(),
        };
        self.state.send_modify(|state| {
            state.phase = SessionPhase::Building;
            state.progress = None;
        });
        let state = self.state.clone();
        let is_first = self.installed.is_empty();
        let compiles_dependencies = Rc::clone(&self.compiles_dependencies);
        let on_event = move |event| match event {
            CargoEvent::Progress(progress) => {
                state.send_modify(|state| state.progress = Some(progress));
            }
            CargoEvent::CompilesDependencies(value) => compiles_dependencies.set(value),
            // Print Cargo's lines only until a library is installed, because the first build takes long.
            CargoEvent::Line(line) if is_first => report::show_compiler_output(&line),
            CargoEvent::Line(_) => {}
        };
        self.round.0 = Some((start.build, Box::pin(round.run(on_event))));
    }

    /// Reloads the settings, refreshes pages, or requests a build, depending on the kinds of the changed files.
    fn handle_changes(&mut self, changes: FileChanges) {
        if changes.config {
            self.reload_settings();
        }
        if !changes.assets.is_empty() {
            let files = self.relative_to_assets(&changes.assets);
            print_line(&format!("{}: pages refresh", files.join(", ")));
            self.state.send_modify(|state| {
                let changes = state.assets.changes + 1;
                state.assets = AssetChanges { changes, files };
            });
        }
        if !changes.sources.is_empty() {
            let changed_at = changes.first_change.unwrap_or_else(Instant::now);
            self.request_build(changes.sources, changed_at);
        }
    }

    /// Returns the paths of static files, relative to the watched folders that contain them.
    fn relative_to_assets(&self, files: &BTreeSet<PathBuf>) -> Vec<String> {
        let inputs = self.inputs();
        let relative = |file: &PathBuf| {
            let mut folders = inputs.asset_folders().iter();
            let relative = folders.find_map(|folder| file.strip_prefix(folder).ok());
            relative.unwrap_or(file).to_string_lossy().into_owned()
        };
        files.iter().map(relative).collect()
    }

    /// Writes the server's configuration file again, and makes the server read the file. The server logs which settings
    /// have changed.
    fn reload_settings(&self) {
        let authors_file = self.authors_config.as_deref();
        let crates = start::own_crates(&self.projects);
        match settings::write(&self.server_paths, authors_file, &crates) {
            Ok(()) => self.server.reload_settings(),
            Err(error) => print_line(&format!("error: {}", chain(&error))),
        }
    }

    async fn handle_key(&mut self, key: KeyCommand) {
        match key {
            KeyCommand::Rebuild => self.request_build(BTreeSet::new(), Instant::now()),
            KeyCommand::SetLogLevel(level) => {
                print_line(&control::set_level(&self.control, &level).await)
            }
            KeyCommand::Quit | KeyCommand::Unknown => {
                print_line("r and Enter builds again, l LEVEL changes the log level, q ends")
            }
        }
    }

    /// Starts the server again after the process has ended without a request of the session.
    ///
    /// # Errors
    ///
    /// Fails when the server had run for less than [`MIN_UPTIME`], because a new process would probably end too.
    fn restart_server(&mut self, ended: io::Result<ExitStatus>) -> Result<(), SessionError> {
        let status = ended.map_err(SessionError::System)?;
        if self.server.uptime() < MIN_UPTIME {
            return Err(SessionError::Server(status));
        }
        print_line(&format!(
            "the server ended ({status}), and is started again"
        ));
        let server = DevServer::start(&self.server_args, &self.server_paths.state_socket);
        self.server = server.map_err(SessionError::System)?;
        Ok(())
    }

    /// Ends the session: kills Cargo and stops the server.
    async fn end(self) {
        // Dropping the round kills Cargo. Dropping the state ends the event streams of browsers, for which the server
        // would otherwise wait.
        drop((self.round, self.state));
        self.server.stop().await;
    }

    /// Locks the inputs. Ignores poisoning.
    fn inputs(&self) -> MutexGuard<'_, BuildInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the author's options for Cargo.
fn cargo_options(args: &DevArgs) -> Vec<String> {
    let features = args.features.iter();
    let mut options: Vec<_> = features
        .map(|features| format!("--features={features}"))
        .collect();
    if args.no_default_features {
        options.push("--no-default-features".to_owned());
    }
    options
}

/// The minimum uptime of a server. A server that has ended earlier is not started again.
const MIN_UPTIME: Duration = Duration::from_secs(2);
