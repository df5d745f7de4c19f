//! The sequence: what the watcher reports, and what is done about it.
//!
//! One task owns the state of all apps and is driven by messages: a library settled or went
//! ([`Change`]), a start came to its end, the server stops. What takes time runs elsewhere and
//! reports back, so that a slow start holds up nobody.
//!
//! A library goes through *examine* (read it, check its manifest), *admit* (is it new, are its name
//! and mounts free), *start* (stage, open, init), *publish* (the new generation gets the requests),
//! and *retire* of the one before (drain, stop). A failure anywhere leaves what serves as it is,
//! and is one line in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{debug, error, info};

use super::{
    generation::Generation,
    load::{self, Candidate, LoadError, Start},
    quarantine::PanicLimit,
    registry::Registry,
    scan::Change,
    store::{Hash, Store},
};
use crate::{
    config::Mount,
    log::{bridge, filter::Filter},
};

/// How to load, from the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where plugins are mounted, if not where they ask for.
    pub mounts: Vec<Mount>,
    /// How long a start may take.
    pub init_timeout: Duration,
    /// How long requests may stay in a generation that is replaced or removed.
    pub graceful_timeout: Duration,
    /// How many threads a plugin's runtime has.
    pub worker_threads: u32,
    /// How often a generation may panic.
    pub panic_limit: PanicLimit,
}

/// Loads, replaces and removes plugins as their libraries come, change and go.
#[derive(Debug)]
pub struct Reloader {
    options: Options,
    store: Arc<Store>,
    registry: Arc<Registry>,
    filter: Filter,
    /// Where to ask for another look at a library.
    retries: mpsc::UnboundedSender<PathBuf>,
    /// The apps by name. They come with a library and go with it.
    apps: BTreeMap<&'static str, App>,
    /// How often each app was loaded: the numbers go on when a library comes back.
    loads: BTreeMap<&'static str, u64>,
    /// Libraries whose name or mount was taken.
    waiting: BTreeSet<PathBuf>,
    starting: JoinSet<Finished>,
    retiring: JoinSet<()>,
}

/// An app whose library is in the folder.
#[derive(Debug)]
struct App {
    library: PathBuf,
    mounts: Vec<Arc<str>>,
    serving: Option<Arc<Generation>>,
    /// The content that is being started.
    starting: Option<Hash>,
    /// What settled while another content was being started.
    next: Option<Candidate>,
}

/// A start that came to its end.
#[derive(Debug)]
struct Finished {
    name: &'static str,
    path: PathBuf,
    hash: Hash,
    started: Result<Generation, LoadError>,
}

impl Reloader {
    /// A reloader that has loaded nothing yet.
    #[must_use]
    pub fn new(
        options: Options,
        store: Arc<Store>,
        registry: Arc<Registry>,
        filter: Filter,
        retries: mpsc::UnboundedSender<PathBuf>,
    ) -> Self {
        Self {
            options,
            store,
            registry,
            filter,
            retries,
            apps: BTreeMap::new(),
            loads: BTreeMap::new(),
            waiting: BTreeSet::new(),
            starting: JoinSet::new(),
            retiring: JoinSet::new(),
        }
    }

    /// Follows `changes` until `stop` is sent or dropped; then ends all apps, giving what is in
    /// them the time sent.
    ///
    /// `ready` is sent when all that was in the folder at the start serves, or failed to.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        ready: oneshot::Sender<()>,
        mut stop: oneshot::Receiver<Duration>,
    ) {
        let mut listed = false;
        let mut ready = Some(ready);
        let patience = loop {
            tokio::select! {
                biased;
                patience = &mut stop => break patience.unwrap_or_default(),
                Some(finished) = self.starting.join_next() => self.finish(finished),
                Some(_) = self.retiring.join_next() => {}
                Some(change) = changes.recv() => match change {
                    Change::Present { path, attempt } => self.present(path, attempt).await,
                    Change::Removed { path } => self.removed(&path).await,
                    Change::Listed => listed = true,
                },
            }
            if listed && self.starting.is_empty() {
                // The server may have stopped waiting for it.
                ready.take().map(|ready| ready.send(()));
            }
        };
        self.stop(patience).await;
    }

    async fn present(&mut self, path: PathBuf, attempt: u32) {
        match load::examine(path.clone()).await {
            Ok(candidate) => self.admit(candidate),
            Err(error) if error.is_gone() => {
                debug!(file = %path.display(), "Went away before it was read")
            }
            Err(error) if error.is_incomplete() && attempt < ATTEMPTS => {
                debug!(file = %path.display(), attempt, error = &error as &dyn Error, "Not whole yet");
                // The watcher ends after this does.
                let _ = self.retries.send(path);
            }
            Err(error) => self.failed(None, &path, None, &error),
        }
    }

    /// Starts what is new, where its name and mounts are free.
    fn admit(&mut self, candidate: Candidate) {
        let name = bridge::intern(&candidate.manifest.name);
        if let Some(other) = self
            .served_from(&candidate.path)
            .filter(|&other| other != name)
        {
            info!(plugin = other, file = %candidate.path.display(), by = name, "Removed, the library is another plugin now");
            self.forget(other);
        }
        let hash = candidate.snapshot.hash();
        let mounts = self.mounts(name, &candidate.manifest.mount);
        if let Err(error) = self.free(name, &mounts, &candidate.path) {
            self.failed(Some(name), &candidate.path, Some(hash), &error);
            self.waiting.insert(candidate.path);
            return;
        }
        self.waiting.remove(&candidate.path);

        let app = self.apps.entry(name).or_insert_with(|| App {
            library: candidate.path.clone(),
            mounts: Vec::new(),
            serving: None,
            starting: None,
            next: None,
        });
        app.library.clone_from(&candidate.path);
        if app.mounts != mounts {
            // From here on requests are told that the app is on its way, not that there is nothing.
            app.mounts.clone_from(&mounts);
            self.registry.publish(name, mounts, app.serving.clone());
        }
        match app.starting {
            Some(starting) if starting == hash => app.next = None,
            Some(_) => app.next = Some(candidate),
            None if app
                .serving
                .as_ref()
                .is_some_and(|serving| serving.hash == hash) =>
            {
                info!(plugin = name, file = %candidate.path.display(), hash = hash.short(), "Unchanged, not loaded again");
            }
            None => self.start(name, candidate),
        }
    }

    fn start(&mut self, name: &'static str, candidate: Candidate) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let load = self.loads.entry(name).or_default();
        *load += 1;
        let start = Start {
            name,
            mount: app
                .mounts
                .first()
                .cloned()
                .unwrap_or_else(|| Arc::from("/")),
            generation: *load,
            timeout: self.options.init_timeout,
            worker_threads: self.options.worker_threads,
            panic_limit: self.options.panic_limit,
            filter: self.filter.clone(),
        };
        let (path, hash) = (candidate.path.clone(), candidate.snapshot.hash());
        app.starting = Some(hash);
        debug!(plugin = name, generation = *load, file = %path.display(), hash = hash.short(), "Starting");
        let store = Arc::clone(&self.store);
        self.starting.spawn(async move {
            let started = load::start(candidate, store, start).await;
            Finished {
                name,
                path,
                hash,
                started,
            }
        });
    }

    fn finish(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        // The task has no code that panics, and nobody cancels it.
        let Ok(Finished {
            name,
            path,
            hash,
            started,
        }) = finished
        else {
            return;
        };
        let Some(app) = self
            .apps
            .get_mut(name)
            .filter(|app| app.starting == Some(hash))
        else {
            // The library went away meanwhile.
            if let Ok(generation) = started {
                self.retire(Arc::new(generation));
            }
            return;
        };
        app.starting = None;
        let next = app.next.take();
        match started {
            Ok(generation) => self.publish(Arc::new(generation), &path),
            Err(error) => self.failed(Some(name), &path, Some(hash), &error),
        }
        if let Some(next) = next {
            self.admit(next);
        }
    }

    fn publish(&mut self, generation: Arc<Generation>, path: &Path) {
        let Some(app) = self.apps.get_mut(generation.name) else {
            return;
        };
        app.serving = Some(Arc::clone(&generation));
        let before =
            self.registry
                .publish(generation.name, app.mounts.clone(), app.serving.clone());
        info!(
            plugin = generation.name,
            version = generation.version,
            generation = generation.number,
            replaces = before.as_ref().map(|before| before.number),
            hash = generation.hash.short(),
            mount = app.mounts.join(","),
            max_level = generation.max_level,
            file = %path.display(),
            "Loaded"
        );
        if let Some(before) = before {
            self.retire(before);
        }
    }

    async fn removed(&mut self, path: &Path) {
        self.waiting.remove(path);
        let Some(name) = self.served_from(path) else {
            return;
        };
        // Under another name the library may be there already: then it takes over without a gap.
        for other in self.waiting.clone() {
            if let Ok(candidate) = load::examine(other).await
                && candidate.manifest.name == name
            {
                info!(plugin = name, file = %path.display(), by = %candidate.path.display(), "Removed, another library takes over");
                if let Some(app) = self.apps.get_mut(name) {
                    app.library.clone_from(&candidate.path);
                }
                return self.admit(candidate);
            }
        }
        info!(plugin = name, file = %path.display(), "Removed");
        self.forget(name);
        // What wanted the name or the mount may have it now.
        for path in std::mem::take(&mut self.waiting) {
            self.present(path, 0).await;
        }
    }

    /// The app whose library is at `path`.
    fn served_from(&self, path: &Path) -> Option<&'static str> {
        let mut apps = self.apps.iter();
        apps.find(|(_, app)| app.library == path)
            .map(|(&name, _)| name)
    }

    /// Ends an app whose library is gone.
    fn forget(&mut self, name: &'static str) {
        self.apps.remove(name);
        if let Some(generation) = self.registry.remove(name) {
            self.retire(generation);
        }
    }

    fn retire(&mut self, generation: Arc<Generation>) {
        self.retiring
            .spawn(generation.retire(self.options.graceful_timeout));
    }

    async fn stop(mut self, patience: Duration) {
        // A start that is under way has nobody to serve.
        self.starting.abort_all();
        for &name in self.apps.keys() {
            if let Some(generation) = self.registry.remove(name) {
                self.retiring.spawn(generation.retire(patience));
            }
        }
        while self.retiring.join_next().await.is_some() {}
    }

    /// Where an app is mounted: where the operator says, else where it asks for.
    fn mounts(&self, name: &str, asked: &str) -> Vec<Arc<str>> {
        let said = self
            .options
            .mounts
            .iter()
            .filter(|mount| mount.plugin == name);
        let said: Vec<_> = said.map(|mount| Arc::from(&*mount.path)).collect();
        if said.is_empty() {
            vec![Arc::from(asked)]
        } else {
            said
        }
    }

    /// Whether nobody else has the name or one of the mounts.
    fn free(&self, name: &'static str, mounts: &[Arc<str>], path: &Path) -> Result<(), LoadError> {
        // A library that was renamed is there under the new name first.
        let others = |app: &&App| app.library != path && app.library.exists();
        if let Some(app) = self.apps.get(name).filter(others) {
            return Err(LoadError::Name {
                plugin: name,
                by: app.library.clone(),
            });
        }
        let said = |mount: &str| {
            self.options
                .mounts
                .iter()
                .find(|said| said.path == mount && said.plugin != name)
        };
        for mount in mounts {
            let by = self.registry.mounted(mount).filter(|&by| by != name);
            if let Some(by) = by.or_else(|| said(mount).map(|said| bridge::intern(&said.plugin))) {
                return Err(LoadError::Mount {
                    plugin: name.to_owned(),
                    mount: Arc::clone(mount),
                    by,
                });
            }
        }
        Ok(())
    }

    fn failed(
        &self,
        name: Option<&'static str>,
        path: &Path,
        hash: Option<Hash>,
        error: &LoadError,
    ) {
        let by_library = || self.apps.iter().find(|(_, app)| app.library == path);
        let app = name
            .and_then(|name| self.apps.get_key_value(name))
            .or_else(by_library);
        let serving = app.and_then(|(_, app)| app.serving.as_ref());
        error!(
            plugin = app.map(|(&name, _)| name).or(name),
            file = %path.display(),
            hash = hash.map(|hash| hash.short()),
            step = error.step(),
            error = error as &dyn Error,
            serving = serving.map(|serving| serving.number),
            "{}",
            if serving.is_some() { "Not loaded, the generation before serves on" } else { "Not loaded" }
        );
    }
}

/// How often a library that is not whole is read again before that counts as a failure, unless it
/// changes: 1.5 s to 3 s, as the waits double.
const ATTEMPTS: u32 = 4;
