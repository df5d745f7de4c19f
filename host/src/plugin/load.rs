//! One load of a library, from its bytes to a started app: examine, stage, open, init.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use plugin_api::{
    host::{App, Init, InitError},
    manifest::Manifest,
};
use tokio::{sync::oneshot, task, time};
use tokio_util::sync::CancellationToken;

use super::{
    generation::Generation,
    library::{self, OpenError},
    manifest::{self, ManifestError},
    quarantine::{PanicLimit, Quarantine},
    store::{Snapshot, Store, StoreError},
};
use crate::log::{bridge::Bridge, filter::Filter, origin::Origin};

/// A library that may be loaded: its bytes, and what they say of themselves.
#[derive(Debug)]
pub struct Candidate {
    /// The file in the plugins folder.
    pub path: PathBuf,
    /// What the library says of itself.
    pub manifest: Manifest,
    /// The bytes of the library, which are what is loaded: nobody can change them any more.
    pub snapshot: Snapshot,
}

/// Reads the library at `path` and checks what can be checked without running it.
///
/// # Errors
///
/// When it cannot be read, is no whole library, or is one that this host does not load.
pub async fn examine(path: PathBuf) -> Result<Candidate, LoadError> {
    let examine = move || {
        let snapshot = Snapshot::read(&path)?;
        let manifest = manifest::read_bytes(snapshot.bytes())?;
        manifest::accept(&manifest)?;
        Ok(Candidate {
            path,
            manifest,
            snapshot,
        })
    };
    task::spawn_blocking(examine)
        .await
        .unwrap_or_else(|error| Err(LoadError::Thread(error.into())))
}

/// How to start an app.
#[derive(Clone, Debug)]
pub struct Start {
    /// The app's name.
    pub name: &'static str,
    /// Where it is mounted first of all.
    pub mount: Arc<str>,
    /// Which load of the app this will be.
    pub generation: u64,
    /// How long its start may take.
    pub timeout: Duration,
    /// How many threads its runtime has.
    pub worker_threads: u32,
    /// How often it may panic.
    pub panic_limit: PanicLimit,
    /// The level, which the library follows from before its start on.
    pub filter: Filter,
}

/// Stages the candidate, opens the copy, and starts the app, on a thread of its own: the author's
/// code may block it.
///
/// # Errors
///
/// When one of these fails, or the start takes too long. A start that hangs is left behind with its
/// thread.
pub async fn start(
    candidate: Candidate,
    store: Arc<Store>,
    start: Start,
) -> Result<Generation, LoadError> {
    let (sender, started) = oneshot::channel();
    let timeout = start.timeout;
    let run = move || {
        // Nobody waits any more when the start took too long.
        if let Err(Ok(late)) = sender.send(start_blocking(candidate, &store, &start)) {
            late.app.stop(Duration::ZERO);
        }
    };
    thread::Builder::new()
        .name("loader".to_owned())
        .spawn(run)
        .map_err(LoadError::Thread)?;
    // A start that waits for something is ended by the plugin's runtime, so that nothing of it is
    // left behind.
    match time::timeout(timeout.saturating_add(GRACE), started).await {
        Ok(Ok(started)) => started,
        Ok(Err(_)) => Err(LoadError::Thread(io::Error::other("the loader panicked"))),
        Err(_) => Err(LoadError::Hangs(timeout)),
    }
}

fn start_blocking(
    candidate: Candidate,
    store: &Store,
    start: &Start,
) -> Result<Generation, LoadError> {
    let Candidate {
        manifest, snapshot, ..
    } = candidate;
    let copy = store.stage(&snapshot, start.name, start.generation)?;
    let quarantine = Arc::new(Quarantine::new(start.panic_limit));
    let app = open(&copy, start, Arc::clone(&quarantine))?;
    Ok(Generation {
        name: start.name,
        number: start.generation,
        max_level: max_level(&manifest),
        version: manifest.version,
        hash: snapshot.hash(),
        app,
        quarantine,
        cut: CancellationToken::new(),
    })
}

/// What `max_level_*` features left out of a plugin no level brings back.
fn max_level(manifest: &Manifest) -> Option<String> {
    let levels = [
        ("tracing", &manifest.tracing_max_level),
        ("log", &manifest.log_max_level),
    ];
    let lower = levels.into_iter().filter(|(_, level)| *level != "trace");
    let lower: Vec<_> = lower
        .map(|(name, level)| format!("{name}={level}"))
        .collect();
    (!lower.is_empty()).then(|| lower.join(","))
}

fn open(copy: &Path, start: &Start, quarantine: Arc<Quarantine>) -> Result<Arc<App>, LoadError> {
    let plugin = library::open(copy)?;
    start.filter.follow(move |level| plugin.set_level(level));
    let origin = Origin {
        plugin: start.name,
        generation: start.generation,
    };
    let bridge = Bridge::new(origin, quarantine);
    let init = Init {
        name: start.name,
        mount: &start.mount,
        config: None,
        previous_state: None,
        generation: start.generation,
        timeout: start.timeout,
        worker_threads: start.worker_threads,
    };
    Ok(plugin.init(bridge, &init)?)
}

/// How much longer than its time a start may take to notice that the time is over.
const GRACE: Duration = Duration::from_millis(500);

/// A library that was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Its start did not return.
    #[error("it did not start within {}, and still blocks a thread", humantime::format_duration(*.0))]
    Hangs(Duration),
    /// Its start failed.
    #[error("its start failed")]
    Init(#[from] InitError),
    /// Its file is not that of a plugin for this host.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another app is mounted where it would be.
    #[error(
        "its mount {mount} is taken by the plugin {by}; give one of them another by --mount /PATH={plugin}"
    )]
    Mount {
        /// The plugin.
        plugin: String,
        /// Where it would be mounted.
        mount: Arc<str>,
        /// What is mounted there.
        by: &'static str,
    },
    /// Another library has a plugin of the same name.
    #[error("its plugin {plugin} is served from {}; remove one of the two", by.display())]
    Name {
        /// The plugin's name.
        plugin: &'static str,
        /// The other library.
        by: PathBuf,
    },
    /// The dynamic linker or the gate refuses it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read or copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was no thread for it.
    #[error("there is no thread to load it on")]
    Thread(#[source] io::Error),
}

impl LoadError {
    /// Which step of loading failed.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Store(
                StoreError::Changed { .. } | StoreError::NotFile { .. } | StoreError::Read { .. },
            ) => "read",
            Self::Store(_) => "stage",
            Self::Manifest(_) => "manifest",
            Self::Mount { .. } | Self::Name { .. } => "mount",
            Self::Open(_) => "open",
            Self::Hangs(_) | Self::Init(_) | Self::Thread(_) => "init",
        }
    }

    /// Whether the library may still be on its way, so that it is worth another look although it
    /// does not change.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Changed { .. })
                | Self::Manifest(ManifestError::Incomplete { .. })
        )
    }

    /// Whether the library went away before it was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Store(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}
