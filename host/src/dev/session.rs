//! The life of a session: an event loop over the terminal, the files, the running round and the server.

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
    report::{self, say},
    round::{LibraryStamp, Round, RoundOutcome},
    scheduler::BuildScheduler,
    server::{DevServer, ServerEvent},
    settings::{self, SessionPaths},
    state::{AssetChanges, SessionPhase, SessionState},
    watch::{FileChanges, SourceWatcher},
};
use crate::error_chain::chain;

pub(super) use self::error::SessionError;

/// Runs a session until the author or a signal ends it. `server_flags` are the server's options among
/// the arguments.
///
/// # Errors
///
/// Fails when the session cannot start, or when the server ends soon after a start.
pub(super) async fn run(args: &DevArgs, server_flags: &[OsString]) -> Result<(), SessionError> {
    let mut session = Session::start(args, server_flags).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SessionError::System)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SessionError::System)?;
    let mut keys = keys::read();
    let mut changes = FileChanges::default();
    session.build(BTreeSet::new(), Instant::now());
    loop {
        tokio::select! {
            // Signals first: a burst of changes or lines must not delay the end.
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some(key) = keys.recv() => match key {
                KeyCommand::Quit => break,
                key => session.key_pressed(key).await,
            },
            () = session.watcher.changes(&mut changes) => {
                session.files_changed(std::mem::take(&mut changes));
            }
            (build, outcome) = session.round.next() => session.round_ended(build, outcome),
            event = session.server.next() => match event {
                ServerEvent::Ended(status) => session.restart_server(status)?,
                ServerEvent::Listening(origin) => _ = session.origin.get_or_insert(origin),
            },
        }
    }
    session.end().await;
    Ok(())
}

/// A session that runs.
struct Session {
    args: DevArgs,
    /// The paths that the author named.
    paths: Vec<PathBuf>,
    server_paths: SessionPaths,
    /// The temporary folders that hold `server_paths`, removed when the session ends.
    _folders: [TempDir; 2],
    server: DevServer,
    /// The arguments of the server, to start it again.
    server_args: Vec<OsString>,
    /// The control socket of the server.
    control: PathBuf,
    /// The first origin that the server listens at, once it does.
    origin: Option<String>,
    /// Whether the author was told the addresses of the apps.
    has_told_addresses: bool,
    /// The author's configuration file of the server.
    authors_config: Option<PathBuf>,
    projects: Vec<Project>,
    /// Whether a manifest has changed since Cargo described `projects`.
    is_stale: bool,
    inputs: Arc<Mutex<BuildInputs>>,
    watcher: SourceWatcher,
    scheduler: BuildScheduler,
    round: CurrentRound,
    /// Whether the running build compiles dependencies, and has not reached the author's crates. The round
    /// sets the cell.
    compiles_dependencies: Rc<Cell<bool>>,
    /// The libraries in the plugins folder, by file name.
    installed: BTreeMap<String, LibraryStamp>,
    /// The libraries in the plugins folder that do not start, by file name, with the reasons.
    failed_starts: BTreeMap<String, String>,
    state: watch::Sender<SessionState>,
    /// The time of the first change that the running build covers.
    changed_at: Instant,
    /// When the running build started, as a time that can be compared with the times of files.
    build_started: SystemTime,
}

/// The round that runs, if any, with the number of its build.
#[derive(Default)]
struct CurrentRound(Option<(u64, RoundFuture)>);

type RoundFuture = Pin<Box<dyn Future<Output = RoundOutcome>>>;

impl CurrentRound {
    /// Waits for the end of the round; for ever when none runs. Cancel-safe.
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
    /// Asks the scheduler for a build of these changes, and starts it. A running round is cancelled if the
    /// scheduler says so.
    fn build(&mut self, files: BTreeSet<PathBuf>, changed_at: Instant) {
        self.is_stale |= files.iter().any(|file| file.ends_with("Cargo.toml"));
        // While a round runs, keep the time of the first change: the author has waited longest for that one.
        if self.round.0.is_none() {
            self.changed_at = changed_at;
        }
        let compiles_dependencies = self.compiles_dependencies.get();
        let Some(start) = self.scheduler.changed(files, compiles_dependencies) else {
            return;
        };
        self.compiles_dependencies.set(false);
        if start.cancel.is_some() {
            // Dropping the future of the round kills Cargo.
            self.round.0 = None;
        }
        self.build_started = SystemTime::now();
        // An empty list makes the round ask Cargo again, which takes some 100 ms.
        let projects = if self.is_stale {
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
            CargoEvent::CompilesDependencies(is) => compiles_dependencies.set(is),
            // The first build takes long, so its progress is worth showing. Later builds only report errors.
            CargoEvent::Line(line) if is_first => report::show(&line),
            CargoEvent::Line(_) => {}
        };
        self.round.0 = Some((start.build, Box::pin(round.run(on_event))));
    }

    /// Reloads settings, refreshes pages, or starts a build, according to the files that changed.
    fn files_changed(&mut self, changes: FileChanges) {
        if changes.config {
            self.reload_settings();
        }
        if !changes.assets.is_empty() {
            let files = self.relative_to_assets(&changes.assets);
            say(&format!("{}: pages refresh", files.join(", ")));
            self.state.send_modify(|state| {
                let changes = state.assets.changes + 1;
                state.assets = AssetChanges { changes, files };
            });
        }
        if !changes.sources.is_empty() {
            let changed_at = changes.since.unwrap_or_else(Instant::now);
            self.build(changes.sources, changed_at);
        }
    }

    /// Returns the paths of static files relative to their watched folder.
    fn relative_to_assets(&self, files: &BTreeSet<PathBuf>) -> Vec<String> {
        let inputs = self.inputs();
        let relative = |file: &PathBuf| {
            let mut folders = inputs.assets().iter();
            let relative = folders.find_map(|folder| file.strip_prefix(folder).ok());
            relative.unwrap_or(file).to_string_lossy().into_owned()
        };
        files.iter().map(relative).collect()
    }

    /// Writes the server's configuration file again, and has the server read it. The server logs which
    /// settings have changed.
    fn reload_settings(&self) {
        let authors = self.authors_config.as_deref();
        let crates = start::own_crates(&self.projects);
        match settings::write(&self.server_paths, authors, &crates) {
            Ok(()) => self.server.reload_settings(),
            Err(error) => say(&format!("error: {}", chain(&error))),
        }
    }

    async fn key_pressed(&mut self, key: KeyCommand) {
        match key {
            KeyCommand::Rebuild => self.build(BTreeSet::new(), Instant::now()),
            KeyCommand::Level(level) => say(&control::set_level(&self.control, &level).await),
            KeyCommand::Quit | KeyCommand::Unknown => {
                say("r and Enter builds again, l LEVEL changes the log level, q ends")
            }
        }
    }

    /// Starts the server again after it has ended by itself, for instance because an app crashed.
    ///
    /// # Errors
    ///
    /// Fails when the server had run for less than [`MIN_UPTIME`]: it would probably end in the same way again.
    fn restart_server(&mut self, ended: io::Result<ExitStatus>) -> Result<(), SessionError> {
        let status = ended.map_err(SessionError::System)?;
        if self.server.age() < MIN_UPTIME {
            return Err(SessionError::Server(status));
        }
        say(&format!(
            "the server ended ({status}), and is started again"
        ));
        let server = DevServer::start(&self.server_args, &self.server_paths.feed);
        self.server = server.map_err(SessionError::System)?;
        Ok(())
    }

    async fn end(self) {
        // Kill Cargo, and end the browsers' event streams: the server would wait for these.
        drop((self.round, self.state));
        self.server.stop().await;
    }

    fn inputs(&self) -> MutexGuard<'_, BuildInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the options of Cargo that the author gave to the session.
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

/// A server that ended by itself is started again only if it ran for at least this long.
const MIN_UPTIME: Duration = Duration::from_secs(2);
