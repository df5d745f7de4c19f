//! Which apps there are: from a library in the folder to the apps that it is, and what each is
//! doing.

use std::{
    error::Error,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tracing::{debug, error, info};

use super::{Done, Purpose, Refused, Reloader, Reply};
use crate::{
    log::bridge,
    plugin::{
        generation::Generation,
        load::{self, Candidate, LoadError, Progress, Rejected, Took},
        report::Failure,
        store::Hash,
    },
};

/// An app whose library is in the folder.
#[derive(Debug)]
pub(super) struct App {
    /// The plugin that it is.
    pub(super) plugin: &'static str,
    pub(super) library: PathBuf,
    pub(super) mounts: Vec<Arc<str>>,
    pub(super) serving: Option<Arc<Generation>>,
    pub(super) state: State,
    /// How long the load of what serves took.
    pub(super) took: Option<Took>,
    /// The copy of the library that served before, if that was another.
    pub(super) previous: Option<PathBuf>,
    /// What was rolled back from: it is not loaded again unless it is asked for.
    pub(super) rejected: Option<Hash>,
    pub(super) last_error: Option<Failure>,
}

/// What is being done about an app.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing: what serves, serves.
    Resting,
    /// A library is on its way to be a generation.
    Loading {
        /// Which generation it is to be.
        generation: u64,
        wanted: Wanted,
        progress: Arc<Progress>,
        /// What is to be loaded after that.
        next: Option<Wanted>,
    },
    /// The generation that serves is watched, as it is new.
    Probation {
        /// The one before, which runs on so that it can be back at once. None when its state has
        /// moved on with the handover: then its library would have to be started again.
        kept: Option<Arc<Generation>>,
    },
}

/// A library that is to be loaded.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) candidate: Arc<Candidate>,
    /// Where it will be mounted.
    pub(super) mounts: Vec<Arc<str>>,
    pub(super) why: Why,
    /// Who asked, and waits for what comes of it.
    pub(super) reply: Option<Reply>,
}

/// Why a library is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is new in the folder, or changed.
    Changed,
    /// The operator wants it loaded again.
    Reload,
    /// It served before, and is to serve again.
    Rollback,
}

impl App {
    fn new(plugin: &'static str, library: PathBuf) -> Self {
        Self {
            plugin,
            library,
            mounts: Vec::new(),
            serving: None,
            state: State::Resting,
            took: None,
            previous: None,
            rejected: None,
            last_error: None,
        }
    }

    /// Has it serve no more, and nowhere. The result is the generations that are to end with it: the
    /// one that served, and one that was kept.
    pub(super) fn leave(&mut self) -> impl Iterator<Item = Arc<Generation>> + use<> {
        self.mounts.clear();
        let kept = match mem::replace(&mut self.state, State::Resting) {
            State::Probation { kept } => kept,
            State::Loading { .. } | State::Resting => None,
        };
        self.serving.take().into_iter().chain(kept)
    }

    /// Whether it is mounted at `mount`, or will be when its next generation serves.
    pub(super) fn has(&self, mount: &str) -> bool {
        let coming = match &self.state {
            State::Loading { wanted, next, .. } => [Some(wanted), next.as_ref()],
            State::Probation { .. } | State::Resting => [None, None],
        };
        let coming = coming
            .into_iter()
            .flatten()
            .flat_map(|wanted| &wanted.mounts);
        self.mounts
            .iter()
            .chain(coming)
            .any(|other| **other == *mount)
    }

    /// Why a library that did not change for the app is not loaded, if it is not.
    fn unchanged(&self, hash: Hash) -> Option<&'static str> {
        let serving = self.serving.as_ref().map(|serving| serving.hash);
        match self.state {
            State::Loading { .. } => None,
            _ if serving == Some(hash) => Some("Unchanged, not loaded again"),
            _ if self.rejected == Some(hash) => {
                Some("Unchanged since it was rolled back, not loaded again")
            }
            _ => None,
        }
    }
}

impl Reloader {
    /// A library settled: it is read.
    pub(super) fn present(&mut self, path: PathBuf, attempt: u32) {
        self.examinations += 1;
        let examination = self.examinations;
        self.examining.insert(path.clone(), examination);
        let purpose = Purpose::Change {
            path: path.clone(),
            attempt,
            examination,
        };
        self.examine(path, purpose);
    }

    pub(super) fn examine(&mut self, path: PathBuf, purpose: Purpose) {
        self.tasks.spawn(async move {
            let examined = load::examine(path).await;
            Done::Examined { purpose, examined }
        });
    }

    /// A library was read.
    pub(super) fn examined(&mut self, purpose: Purpose, examined: Result<Candidate, Rejected>) {
        match purpose {
            Purpose::App { name, why, reply } => self.asked(name, why, reply, examined),
            Purpose::Change {
                path,
                attempt,
                examination,
            } => {
                // It may have changed once more, or gone.
                if self.examining.get(&path) != Some(&examination) {
                    return;
                }
                self.examining.remove(&path);
                match examined {
                    Ok(candidate) => self.admit(Arc::new(candidate)),
                    Err(rejected) => self.rejected(path, attempt, &rejected),
                }
            }
        }
    }

    fn rejected(&mut self, path: PathBuf, attempt: u32, rejected: &Rejected) {
        let Rejected {
            error,
            hash,
            plugin,
        } = rejected;
        if error.is_gone() {
            debug!(file = %path.display(), "Went away before it was read");
        } else if error.is_incomplete() && attempt < ATTEMPTS {
            debug!(file = %path.display(), attempt, error = error as &dyn Error, "Not whole yet");
            // The watcher ends after this does.
            let _ = self.retries.send(path);
        } else {
            let names = self.apps_of(&path);
            for name in &names {
                self.failed(name, &path, *hash, error);
            }
            if names.is_empty() {
                self.refuse(path, plugin.as_deref(), *hash, error);
            }
        }
    }

    /// A library is whole: the apps that it is want it, where their names and mounts are free.
    fn admit(&mut self, candidate: Arc<Candidate>) {
        let path = &candidate.path;
        let plugin = bridge::intern(&candidate.manifest.name);
        self.refused.remove(path);
        for name in self.apps_of(path) {
            if self.apps[name].plugin != plugin {
                info!(plugin = name, file = %path.display(), by = plugin, "Removed, its library holds another plugin now");
                self.remove(name);
            }
        }
        for name in self.names(plugin) {
            let mounts = self.mounts(name, plugin, &candidate.manifest.mount);
            if let Err(error) = self.free(name, &mounts, path) {
                self.refuse(path.clone(), Some(plugin), Some(candidate.hash()), &error);
                continue;
            }
            self.removed.remove(name);
            let new = || App::new(plugin, path.clone());
            let app = self.apps.entry(name).or_insert_with(new);
            app.library.clone_from(path);
            if app.serving.is_none() {
                // From here on requests are told that the app is on its way, not that there is
                // nothing.
                app.mounts.clone_from(&mounts);
                self.registry.publish(name, mounts.clone(), None);
            }
            let wanted = Wanted {
                candidate: Arc::clone(&candidate),
                mounts,
                why: Why::Changed,
                reply: None,
            };
            self.want(name, wanted);
        }
    }

    /// Starts what is wanted, unless it is there already, or when what is being started is done.
    pub(super) fn want(&mut self, name: &'static str, wanted: Wanted) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let hash = wanted.candidate.hash();
        if let Some(unchanged) = app.unchanged(hash).filter(|_| wanted.why == Why::Changed) {
            info!(plugin = name, file = %wanted.candidate.path.display(), hash = hash.short(), "{unchanged}");
            return;
        }
        match &mut app.state {
            State::Loading {
                wanted: loading,
                next,
                ..
            } => {
                let is_under_way = wanted.why == Why::Changed && loading.candidate.hash() == hash;
                // Whoever asked for what was next hears that something newer took its place.
                *next = (!is_under_way).then_some(wanted);
            }
            State::Probation { .. } | State::Resting => self.start(name, wanted),
        }
    }

    /// A library went: its apps go with it, unless another library has the same plugin.
    pub(super) fn removed(&mut self, path: &Path) {
        self.refused.remove(path);
        self.examining.remove(path);
        let names = self.apps_of(path);
        let Some(plugin) = names.first().map(|name| self.apps[name].plugin) else {
            return;
        };
        let is_other =
            |refused: &Refused| refused.waits && refused.plugin.as_deref() == Some(plugin);
        let other = self.refused.iter().find(|(_, refused)| is_other(refused));
        if let Some(other) = other.map(|(path, _)| path.clone()) {
            info!(plugin, file = %path.display(), by = %other.display(), "Removed, another library takes over");
            for app in self.apps.values_mut().filter(|app| app.library == path) {
                app.library.clone_from(&other);
            }
            return self.present(other, 0);
        }
        for name in names {
            info!(plugin = name, file = %path.display(), "Removed");
            self.remove(name);
        }
        // What wanted the name or the mount may have it now.
        let waiting = self.refused.iter().filter(|(_, refused)| refused.waits);
        for path in waiting.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.present(path, 0);
        }
    }

    fn remove(&mut self, name: &'static str) {
        self.registry.remove(name);
        let Some(mut app) = self.apps.remove(name) else {
            return;
        };
        for generation in app.leave() {
            self.retire(generation, self.options.graceful_timeout, None);
        }
        self.removed.insert(name, app);
    }

    /// A library that no app is loaded from.
    fn refuse(
        &mut self,
        path: PathBuf,
        plugin: Option<&str>,
        hash: Option<Hash>,
        error: &LoadError,
    ) {
        let failure = Failure::new(&path, hash, error);
        error!(
            plugin,
            file = failure.file,
            hash = failure.hash,
            step = failure.step,
            error = error as &dyn Error,
            "Not loaded"
        );
        let refused = Refused {
            plugin: plugin.map(str::to_owned),
            waits: error.is_conflict(),
            failure,
        };
        self.refused.insert(path, refused);
    }

    fn apps_of(&self, library: &Path) -> Vec<&'static str> {
        let apps = self.apps.iter().filter(|(_, app)| app.library == library);
        apps.map(|(&name, _)| name).collect()
    }
}

impl Failure {
    pub(super) fn new(path: &Path, hash: Option<Hash>, error: &LoadError) -> Self {
        Self {
            file: path.display().to_string(),
            hash: hash.map(|hash| hash.short()),
            step: error.step(),
            error: load::chain(error),
            at: SystemTime::now(),
        }
    }
}

/// How often a library that is not whole is read again before that counts as a failure, unless it
/// changes: 1.5 s to 3 s, as the waits double.
const ATTEMPTS: u32 = 4;
