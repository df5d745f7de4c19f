//! Which apps there are: from a library in the folder to the apps that it is.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tracing::{debug, error, info};

use super::{App, Done, Purpose, Read, Refused, Reloader, State, Wanted, Why};
use crate::{
    log::bridge,
    plugin::{
        load::{self, Candidate, LoadError, Rejected},
        report::Failure,
        store::Hash,
    },
};

impl Reloader {
    /// A library is there, and others at the same time: it is read, and waits for its turn.
    pub(super) fn present_in_line(&mut self, path: PathBuf) {
        self.line.join(path.clone());
        self.present(path, 0);
    }

    /// A library settled: it is read.
    pub(super) fn present(&mut self, path: PathBuf, attempt: u32) {
        self.line.again(&path);
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
                let read = Read {
                    path,
                    attempt,
                    examined,
                };
                if let Some(read) = self.line.done(read) {
                    self.take(read);
                }
            }
        }
    }

    /// It is the turn of a library that was read.
    pub(super) fn take(&mut self, read: Read) {
        match read.examined {
            Ok(candidate) => self.admit(Arc::new(candidate)),
            Err(rejected) => self.rejected(read.path, read.attempt, &rejected),
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
            } else if !self.names(plugin).contains(&name) {
                info!(plugin = name, file = %path.display(), "Removed, the configuration describes other apps");
                self.remove(name);
            }
        }
        for name in self.names(plugin) {
            let spec = self.spec(name, &candidate);
            if let Err(error) = self.free(name, &spec.mounts, path) {
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
                app.mounts.clone_from(&spec.mounts);
                self.registry.publish(name, spec.mounts.clone(), None);
            }
            let wanted = Wanted {
                candidate: Arc::clone(&candidate),
                spec,
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
        let spec = &wanted.spec;
        if let Some(unchanged) = app.unchanged(spec).filter(|_| wanted.why == Why::Changed) {
            info!(plugin = name, file = %wanted.candidate.path.display(), hash = spec.hash.short(), "{unchanged}");
            if app.serves(spec) {
                // What was wrong with the file has been put right.
                app.last_error = None;
            }
            return;
        }
        match &mut app.state {
            State::Loading {
                wanted: loading,
                next,
                ..
            } => {
                let is_under_way = wanted.why == Why::Changed && loading.spec == wanted.spec;
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
        self.line.leave(path);
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
        self.look_again();
    }

    /// A name or a mount is free: what wanted it may have it now.
    pub(super) fn look_again(&mut self) {
        let waiting = self.refused.iter().filter(|(_, refused)| refused.waits);
        for path in waiting.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.present_in_line(path);
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
/// changes: 16 quiet times in all, as the waits double.
const ATTEMPTS: u32 = 4;
