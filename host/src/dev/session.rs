//! The life of a session: what happens while the author works.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{Method, Request, header::HOST};
use http_body_util::Full;
use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    Args,
    builder::Builder,
    cargo::{self, Heard},
    feed,
    inputs::Inputs,
    job::{self, Job, Round, Stamp},
    keys::{self, Key},
    live::{self, Fate},
    project::{Project, ProjectError},
    report::{self, say},
    server::{Event, Server},
    settings::{self, BindError, Places, SettingsError},
    state::{Assets, Options, Phase, State},
    watch::{Changes, Watch},
};
use crate::{cli, config::Config};

/// Develops until the author or a signal says stop.
///
/// # Errors
///
/// When the session cannot start.
pub(super) async fn run(args: &Args, given: Vec<OsString>) -> Result<(), Error> {
    let mut session = Session::start(args, given).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::System)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::System)?;
    let mut keys = keys::read();
    let mut changes = Changes::default();
    session.build(BTreeSet::new(), Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some(key) = keys.recv() => match key {
                Key::Quit => break,
                key => session.key(key).await,
            },
            () = session.watch.changes(&mut changes) => session.changed(std::mem::take(&mut changes)),
            round = session.job.next() => session.finished(round),
            event = session.server.next() => match event {
                Event::Ended(status) => session.restart(status)?,
                Event::Listening(address) => session.listening(address),
            },
        }
    }
    session.end().await;
    Ok(())
}

/// A session that runs.
struct Session {
    args: Args,
    places: Places,
    /// The folders of `places`, removed at the end.
    _folders: [TempDir; 2],
    server: Server,
    arguments: Vec<OsString>,
    control: PathBuf,
    /// Where the server listens, as it says.
    origin: Option<String>,
    paths: Vec<PathBuf>,
    authors_config: Option<PathBuf>,
    projects: Vec<Project>,
    /// Whether a manifest has changed since Cargo was asked for these.
    is_stale: bool,
    inputs: Arc<Mutex<Inputs>>,
    watch: Watch,
    builder: Builder,
    job: Running,
    /// Whether that build is at what the author's crates depend on.
    is_early: Rc<Cell<bool>>,
    installed: BTreeMap<String, Stamp>,
    state: watch::Sender<State>,
    /// When the first change of the build that is under way was seen.
    since: Instant,
    /// When that build began.
    began: SystemTime,
    told: bool,
}

/// The round that is under way.
#[derive(Default)]
struct Running(Option<(u64, Doing)>);

type Doing = Pin<Box<dyn Future<Output = Round>>>;

impl Running {
    async fn next(&mut self) -> (u64, Round) {
        match &mut self.0 {
            Some((build, job)) => {
                let done = (*build, job.await);
                self.0 = None;
                done
            }
            None => pending().await,
        }
    }
}

impl Session {
    async fn start(args: &Args, given: Vec<OsString>) -> Result<Self, Error> {
        let paths = if args.paths.is_empty() {
            vec![PathBuf::from(".")]
        } else {
            args.paths.clone()
        };
        let projects = job::read(&paths).await?;
        if let Some(name) = job::doubles(&projects).first() {
            return Err(Error::Double((*name).to_owned()));
        }
        let Some(first) = projects.first() else {
            return Err(Error::System(io::ErrorKind::NotFound.into()));
        };
        // Libraries are loaded from there, which a folder for temporary files may not allow. Paths of
        // sockets are short (unix(7): 108 bytes).
        let libraries = cargo::target(first);
        fs::create_dir_all(&libraries).map_err(Error::System)?;
        let folders = [
            tempfile::Builder::new()
                .prefix("serve-")
                .tempdir_in(&libraries)
                .map_err(Error::System)?,
            tempfile::Builder::new()
                .prefix("host-dev-")
                .tempdir()
                .map_err(Error::System)?,
        ];
        let places = Places {
            plugins: folders[0].path().join("plugins"),
            state: folders[0].path().join("state"),
            config: folders[1].path().join("host.toml"),
            control: folders[1].path().join("control"),
            feed: folders[1].path().join("feed"),
        };
        fs::create_dir(&places.plugins).map_err(Error::System)?;

        let beside = first.manifest.with_file_name("host.toml");
        let authors_config = args
            .config
            .clone()
            .or_else(|| beside.is_file().then_some(beside));
        settings::write(&places, authors_config.as_deref(), &levels(&projects))?;
        let (arguments, config) = serve_as(&places, &given, args.allow_remote)?;
        let control = config
            .control
            .as_ref()
            .map_or(places.control.as_path(), |control| control.path())
            .to_owned();

        let folder = |folder: &PathBuf| {
            folder.canonicalize().map_err(|source| Error::Folder {
                folder: folder.clone(),
                source,
            })
        };
        let assets = args
            .watch_dir
            .iter()
            .map(folder)
            .collect::<Result<_, _>>()?;
        let config = authors_config
            .as_ref()
            .and_then(|config| config.canonicalize().ok());
        let mut inputs = Inputs::new(assets, config);
        inputs.set_projects(&projects);
        list_known(&mut inputs, &projects);
        let inputs = Arc::new(Mutex::new(inputs));
        let watch = Watch::new(Arc::clone(&inputs)).map_err(Error::Watch)?;
        let state = watch::Sender::new(State {
            session: format!(
                "{:x}",
                SystemTime::UNIX_EPOCH
                    .elapsed()
                    .map_or(0, |time| time.as_nanos())
            ),
            options: options(args, &projects),
            ..State::default()
        });
        feed::start(&places.feed, state.subscribe()).map_err(Error::System)?;
        let server = Server::start(&arguments, &places.feed).map_err(Error::System)?;
        Ok(Self {
            args: args.clone(),
            places,
            _folders: folders,
            server,
            arguments,
            control,
            origin: None,
            paths,
            authors_config,
            projects,
            is_stale: false,
            inputs,
            watch,
            builder: Builder::default(),
            job: Running::default(),
            is_early: Rc::default(),
            installed: BTreeMap::new(),
            state,
            since: Instant::now(),
            began: SystemTime::now(),
            told: false,
        })
    }

    /// Starts a build for these changes, in the place of one that runs.
    fn build(&mut self, files: BTreeSet<PathBuf>, since: Instant) {
        self.is_stale |= files.iter().any(|file| file.ends_with("Cargo.toml"));
        let is_early = self.is_early.get();
        if self.job.0.is_none() {
            self.since = since;
        }
        let Some(start) = self.builder.changed(files, is_early) else {
            return;
        };
        self.is_early.set(false);
        if start.cancel.is_some() {
            // Dropping it kills Cargo.
            self.job.0 = None;
        }
        self.began = SystemTime::now();
        let job = Job {
            paths: self.paths.clone(),
            projects: if self.is_stale {
                Vec::new()
            } else {
                self.projects.clone()
            },
            options: cargo_options(&self.args),
            plugins: self.places.plugins.clone(),
            control: self.control.clone(),
            installed: self.installed.clone(),
        };
        self.state.send_modify(|state| {
            state.phase = Phase::Building;
            state.progress = None;
        });
        let state = self.state.clone();
        let is_first = self.installed.is_empty();
        let is_early = Rc::clone(&self.is_early);
        let hear = move |heard| match heard {
            Heard::Progress(progress) => state.send_modify(|state| state.progress = Some(progress)),
            Heard::Early(early) => is_early.set(early),
            Heard::Line(line) if is_first => report::show(&line),
            Heard::Line(_) => {}
        };
        self.job.0 = Some((start.build, Box::pin(job.run(hear))));
    }

    fn changed(&mut self, changes: Changes) {
        let since = changes.since.unwrap_or_else(Instant::now);
        if changes.config {
            self.configure();
        }
        if !changes.assets.is_empty() {
            let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            let folders = inputs.assets();
            let short = |file: &PathBuf| {
                let short = folders
                    .iter()
                    .find_map(|folder| file.strip_prefix(folder).ok());
                short.unwrap_or(file).to_string_lossy().into_owned()
            };
            let files: Vec<_> = changes.assets.iter().map(short).collect();
            drop(inputs);
            say(&format!("{}: pages refresh", files.join(", ")));
            self.state.send_modify(|state| {
                let changes = state.assets.changes + 1;
                state.assets = Assets { changes, files };
            });
        }
        if !changes.sources.is_empty() {
            self.build(changes.sources, since);
        }
    }

    /// The author's configuration file changed.
    fn configure(&self) {
        let authors = self.authors_config.as_deref();
        match settings::write(&self.places, authors, &levels(&self.projects)) {
            // The server's log tells which settings are another since.
            Ok(()) => self.server.configure(),
            Err(error) => say(&format!("error: {}", crate::error_chain::chain(&error))),
        }
    }

    fn finished(&mut self, (build, round): (u64, Round)) {
        let Some(changed) = self.builder.finished(build) else {
            return;
        };
        report::show(&round.report);
        let is_live = round
            .fates
            .values()
            .all(|fate| matches!(fate, Fate::Serves(_)));
        let live = (!changed.is_empty()).then(|| self.since.elapsed());
        say(&report::line(&round, &changed, live));
        let failures = round.fates.iter().filter_map(|(file, fate)| match fate {
            Fate::Failed(error) => Some(format!("{file} does not start: {error}\n")),
            Fate::Serves(_) => None,
        });
        let failures: String = failures.collect();
        let served = round.fates.values().filter_map(|fate| match fate {
            Fate::Serves(apps) => Some(apps),
            Fate::Failed(_) => None,
        });
        self.state.send_modify(|state| {
            for app in served.flatten() {
                state.apps.insert(app.name.clone(), app.mounts.clone());
            }
            state.progress = None;
            if !round.is_built {
                state.phase = Phase::BuildFailed;
                state.report.clone_from(&round.report);
            } else if !is_live {
                state.phase = Phase::StartFailed;
                state.report = failures;
            } else if round.fates.is_empty() && state.phase == Phase::StartFailed {
                // The same library as the one that does not start.
            } else {
                state.phase = Phase::Serving;
                state.report.clear();
                state.swaps += u64::from(!round.fates.is_empty());
            }
        });
        self.tell_addresses(&round);
        self.learn(round);
    }

    /// Keeps what a round found out: the files that were read, for instance.
    fn learn(&mut self, round: Round) {
        self.installed.extend(round.installed);
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if !round.projects.is_empty() {
            self.is_stale = false;
            inputs.set_projects(&round.projects);
            self.projects = round.projects;
        }
        let dep_info = round
            .libraries
            .iter()
            .filter_map(|library| fs::read_to_string(cargo::dep_info(library)).ok());
        let new: Vec<_> = dep_info.flat_map(|text| inputs.list(&text)).collect();
        drop(inputs);
        self.watch.update();
        // Nobody watched these while they were read for the first time.
        let began = self.began;
        let is_newer = |file: &PathBuf| {
            fs::metadata(file)
                .and_then(|file| file.modified())
                .is_ok_and(|time| time > began)
        };
        let missed: BTreeSet<_> = new.into_iter().filter(is_newer).collect();
        let late = self.builder.late().into_iter().flatten();
        let missed: BTreeSet<_> = late.chain(missed).collect();
        if !missed.is_empty() {
            self.build(missed, Instant::now());
        }
    }

    async fn key(&mut self, key: Key) {
        match key {
            Key::Rebuild => self.build(BTreeSet::new(), Instant::now()),
            Key::Level(level) => say(&set_level(&self.control, &level).await),
            Key::Quit | Key::Unknown => {
                say("r and Enter builds again, l LEVEL changes the log level, q ends")
            }
        }
    }

    /// The server ended by itself: an app took it along, or it could not start.
    fn restart(&mut self, ended: io::Result<std::process::ExitStatus>) -> Result<(), Error> {
        let status = ended.map_err(Error::System)?;
        if self.server.age() < SOONEST {
            return Err(Error::Server(status));
        }
        say(&format!(
            "the server ended ({status}), and is started again"
        ));
        self.server = Server::start(&self.arguments, &self.places.feed).map_err(Error::System)?;
        Ok(())
    }

    fn listening(&mut self, origin: String) {
        self.origin.get_or_insert(origin);
    }

    /// Says where the apps are, once.
    fn tell_addresses(&mut self, round: &Round) {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.told) else {
            return;
        };
        for fate in round.fates.values() {
            let Fate::Serves(apps) = fate else { continue };
            for (app, mount) in apps
                .iter()
                .flat_map(|app| app.mounts.iter().map(move |mount| (app, mount)))
            {
                say(&format!("{} is at {origin}{mount}", app.name));
                self.told = true;
            }
        }
    }

    async fn end(self) {
        // Cargo is killed, and the streams of browsers end, before the server waits for them.
        drop((self.job, self.state));
        self.server.stop().await;
    }
}

/// The arguments of the server, and what it makes of them.
fn serve_as(
    places: &Places,
    given: &[OsString],
    allow_remote: bool,
) -> Result<(Vec<OsString>, Box<Config>), Error> {
    let mut arguments = settings::arguments(places, given);
    let config = settings::check(&arguments).map_err(|error| Error::Usage(Box::new(error)))?;
    let addresses = settings::addresses(&config.bind, allow_remote)?;
    for (wanted, found) in config.bind.iter().zip(&addresses) {
        if wanted != found {
            say(&format!("{wanted} is taken: using {found}"));
        }
    }
    if allow_remote {
        say(
            "other machines may reach this server, and see errors and sources: use it where you trust all of them",
        );
    }
    arguments.retain(|argument| !argument.to_string_lossy().starts_with("--bind="));
    arguments.extend(
        addresses
            .iter()
            .map(|address| OsString::from(format!("--bind={address}"))),
    );
    if config.control.is_none() {
        let mut control = OsString::from("--control=unix:");
        control.push(&places.control);
        arguments.push(control);
    }
    Ok((arguments, config))
}

/// The crates whose debug lines the author wants to see.
fn levels(projects: &[Project]) -> Vec<String> {
    let packages = projects.iter().flat_map(|project| &project.packages);
    let own = packages.filter(|package| package.is_own());
    own.map(|package| package.library.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn options(args: &Args, projects: &[Project]) -> Options {
    let used = projects
        .iter()
        .flat_map(|project| &project.packages)
        .filter(|package| package.is_used);
    Options {
        refresh: !args.no_refresh,
        hosts: args.allow_host.clone(),
        sources: used.map(|package| package.folder.clone()).collect(),
        roots: projects
            .iter()
            .map(|project| project.root.clone())
            .collect(),
    }
}

/// Reads what an earlier session found out.
fn list_known(inputs: &mut Inputs, projects: &[Project]) {
    for project in projects {
        let folder = cargo::target(project).join("debug");
        for plugin in &project.plugins {
            let name = format!("lib{}.d", plugin.name.replace('-', "_"));
            if let Ok(text) = fs::read_to_string(folder.join(name)) {
                inputs.list(&text);
            }
        }
    }
}

fn cargo_options(args: &Args) -> Vec<String> {
    let mut options: Vec<_> = args
        .features
        .iter()
        .map(|features| format!("--features={features}"))
        .collect();
    options.extend(
        args.no_default_features
            .then(|| "--no-default-features".to_owned()),
    );
    options
}

/// Changes the level of the log. The result is what to say.
async fn set_level(control: &Path, level: &str) -> String {
    let body = Full::<bytes::Bytes>::from(serde_json::json!({ "level": level }).to_string());
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/log-level")
        .header(HOST, "host")
        .body(body);
    let Ok(request) = request else {
        return "the level cannot be asked for".to_owned();
    };
    match live::ask(control, request).await {
        Ok(answer) => match (answer["error"].as_str(), answer["level"].as_str()) {
            (Some(error), _) => error.to_owned(),
            (None, level) => format!("log level {}", level.unwrap_or_default()),
        },
        Err(error) => format!("the server does not answer: {error}"),
    }
}

/// How long a server must have run to be started again.
const SOONEST: Duration = Duration::from_secs(2);

/// A session that cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The address is none for a session.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Two plugins have one name.
    #[error("two of the crates are named {0}, expected names that differ")]
    Double(String),
    /// A folder of static files is none.
    #[error("cannot watch {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing to develop.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The server ended as soon as it was started.
    #[error("the server ended ({0}) soon after it was started, which its log explains")]
    Server(std::process::ExitStatus),
    /// The server's settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The system refuses.
    #[error("cannot start the session")]
    System(#[source] io::Error),
    /// The server's options are wrong.
    #[error(transparent)]
    Usage(Box<cli::Error>),
    /// Files cannot be watched.
    #[error("cannot watch the sources")]
    Watch(#[source] notify::Error),
}
