//! The start of a session: folders, settings, the files to watch, and the server process.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use tempfile::{Builder, TempDir};
use tokio::sync::watch;

use super::{CurrentRound, Session, SessionError};
use crate::{
    config::Config,
    dev::{
        DevArgs, addresses, cargo, feed,
        inputs::BuildInputs,
        project::Project,
        report::print_line,
        round,
        scheduler::BuildScheduler,
        server::DevServer,
        settings::{self, SessionPaths},
        state::{SessionOptions, SessionState},
        watch::SourceWatcher,
    },
    settings::parse,
};

impl Session {
    /// Reads the projects, starts the server, and starts to watch the sources. The caller requests the first build.
    pub(super) async fn start(
        args: &DevArgs,
        server_flags: &[OsString],
    ) -> Result<Self, SessionError> {
        let paths = if args.paths.is_empty() {
            vec![PathBuf::from(".")]
        } else {
            args.paths.clone()
        };
        let projects = round::read_projects(&paths).await?;
        if let Some(name) = round::duplicate_names(&projects).first() {
            return Err(SessionError::Duplicate((*name).to_owned()));
        }
        // The first project decides where the session keeps its files and which `host.toml` is read.
        let Some(first) = projects.first() else {
            return Err(SessionError::System(io::ErrorKind::NotFound.into()));
        };
        let (folders, server_paths) = make_folders(first).map_err(SessionError::System)?;

        let beside_manifest = first.manifest.with_file_name("host.toml");
        let authors_config = args.config.clone();
        let authors_config =
            authors_config.or_else(|| beside_manifest.is_file().then_some(beside_manifest));
        let crates = own_crates(&projects);
        settings::write(&server_paths, authors_config.as_deref(), &crates)?;
        let (server_args, config) = server_args(&server_paths, server_flags, args.allow_remote)?;
        let control = config.control.as_ref();
        let control = control.map_or(&*server_paths.control, |control| control.path());
        let control = control.to_owned();

        let inputs = first_inputs(args, authors_config.as_deref(), &projects)?;
        let inputs = Arc::new(Mutex::new(inputs));
        let watcher = SourceWatcher::new(Arc::clone(&inputs)).map_err(SessionError::Watch)?;
        let state = watch::Sender::new(SessionState {
            session: session_id(),
            options: session_options(args, &projects),
            ..SessionState::default()
        });
        // Bind the state socket before the server starts, because the server connects to it.
        feed::start(&server_paths.state_socket, state.subscribe()).map_err(SessionError::System)?;
        let server = DevServer::start(&server_args, &server_paths.state_socket);
        Ok(Self {
            args: args.clone(),
            paths,
            server: server.map_err(SessionError::System)?,
            server_paths,
            _folders: folders,
            server_args,
            control,
            origin: None,
            has_printed_addresses: false,
            authors_config,
            projects,
            has_manifest_changed: false,
            inputs,
            watcher,
            scheduler: BuildScheduler::default(),
            round: CurrentRound::default(),
            compiles_dependencies: Rc::default(),
            installed: BTreeMap::new(),
            failed_starts: BTreeMap::new(),
            state,
            changed_at: Instant::now(),
            build_started: SystemTime::now(),
        })
    }
}

/// Makes the folders of a session's server: one for libraries and one for sockets and the configuration file. Dropping
/// a [`TempDir`] removes the folder.
fn make_folders(project: &Project) -> io::Result<([TempDir; 2], SessionPaths)> {
    let target = cargo::target_folder(project);
    fs::create_dir_all(&target)?;
    // Put the libraries below the target folder, because /tmp may be mounted noexec, and the system loads no library
    // from such a file system.
    let libraries = Builder::new().prefix("serve-").tempdir_in(&target)?;
    // Put the sockets into the system's folder for temporary files, because the path of a socket has at most 107 bytes
    // (unix(7)) and the path of a target folder may be longer.
    let sockets = Builder::new().prefix("host-dev-").tempdir()?;
    let paths = SessionPaths {
        plugins: libraries.path().join("plugins"),
        state: libraries.path().join("state"),
        config: sockets.path().join("host.toml"),
        control: sockets.path().join("control"),
        state_socket: sockets.path().join("feed"),
    };
    fs::create_dir(&paths.plugins)?;
    Ok(([libraries, sockets], paths))
}

/// Returns the arguments of the server, and the settings that the server will parse from these arguments. Prints a
/// note if the server uses another port because the wanted port is taken, and if other machines can reach the server.
fn server_args(
    paths: &SessionPaths,
    server_flags: &[OsString],
    allow_remote: bool,
) -> Result<(Vec<OsString>, Box<Config>), SessionError> {
    let mut args = settings::arguments(paths, server_flags);
    let config = parse(&args).map_err(|error| SessionError::Usage(Box::new(error)))?;
    let config = config.config;
    let addresses = addresses::find_free(&config.bind, allow_remote)?;
    for (wanted, found) in config.bind.iter().zip(&addresses) {
        if wanted != found {
            print_line(&format!("{wanted} is taken: using {found}"));
        }
    }
    if allow_remote {
        print_line(
            "other machines may reach this server, and see errors and sources: use it where you trust all of them",
        );
    }
    // Replace the wanted addresses by the free addresses. The new flags `--bind` also override addresses from the
    // environment and the configuration file.
    args.retain(|arg| !arg.to_string_lossy().starts_with("--bind="));
    let binds = addresses.iter();
    args.extend(binds.map(|address| OsString::from(format!("--bind={address}"))));
    if config.control.is_none() {
        let mut control = OsString::from("--control=unix:");
        control.push(&paths.control);
        args.push(control);
    }
    Ok((args, config))
}

/// Returns the inputs of the first build, including the files that the last build of an earlier session has read.
fn first_inputs(
    args: &DevArgs,
    authors_config: Option<&Path>,
    projects: &[Project],
) -> Result<BuildInputs, SessionError> {
    let canonical = |folder: &PathBuf| {
        folder
            .canonicalize()
            .map_err(|source| SessionError::Folder {
                folder: folder.clone(),
                source,
            })
    };
    let asset_folders = args.watch_dir.iter().map(canonical);
    let asset_folders = asset_folders.collect::<Result<_, _>>()?;
    let config = authors_config.and_then(|config| config.canonicalize().ok());
    let mut inputs = BuildInputs::new(asset_folders, config);
    inputs.set_projects(projects);
    for project in projects {
        let folder = cargo::target_folder(project).join("debug");
        for plugin in &project.plugins {
            // Read the dep-info file of the last build, because it also lists files outside of the packages, such as
            // templates.
            let name = format!("lib{}.d", plugin.name.replace('-', "_"));
            if let Ok(text) = fs::read_to_string(folder.join(name)) {
                inputs.add_dep_info(&text);
            }
        }
    }
    Ok(inputs)
}

/// Returns the Rust names of the author's own crates. The server logs these crates at debug by default.
pub(super) fn own_crates(projects: &[Project]) -> Vec<String> {
    let packages = projects.iter().flat_map(|project| &project.packages);
    let own = packages.filter(|package| package.is_own());
    let names: BTreeSet<_> = own.map(|package| package.library_name.clone()).collect();
    names.into_iter().collect()
}

/// Returns the part of the session's state that does not change.
fn session_options(args: &DevArgs, projects: &[Project]) -> SessionOptions {
    let packages = projects.iter().flat_map(|project| &project.packages);
    let used = packages.filter(|package| package.is_used);
    let roots = projects.iter().map(|project| project.root.clone());
    SessionOptions {
        refresh: !args.no_refresh,
        hosts: args.allow_host.clone(),
        sources: used.map(|package| package.folder.clone()).collect(),
        roots: roots.collect(),
    }
}

/// Returns a text that identifies the session: the current time in nanoseconds.
fn session_id() -> String {
    let time = SystemTime::UNIX_EPOCH.elapsed();
    format!("{:x}", time.map_or(0, |time| time.as_nanos()))
}
