//! Carries out the actions of app state machines: orders to workers, answers to operators, private copies.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::task;

use super::{
    Supervisor, TaskOutcome,
    app::{App, AppAction, LibrarySource, ReplyId},
    error::CommandError,
    outcome::{LoadFailure, ReloadReport},
};
use crate::{
    folder::{
        candidate::{self, Candidate},
        store::{Store, StoreError},
    },
    orders::{Order, Spec, StagedGeneration, StepTimings},
    supervisor::catalog::TakenError,
    worker::{
        load::{LoadError, max_level},
        trial::Trial,
    },
};

impl Supervisor {
    /// Carries out the actions that the app `name` has returned, in order.
    pub(super) fn apply(&mut self, name: &str, actions: Vec<AppAction>) {
        for action in actions {
            match action {
                AppAction::Answer(reply_id, answer) => {
                    self.answer(reply_id, answer.map(|proof| *proof))
                }
                AppAction::Commit => self.commit_what_is_ready(),
                AppAction::Prepare {
                    generation,
                    spec,
                    source,
                } => self.prepare(name, generation, spec, source),
                AppAction::Send(None, order) => self.fleet.send_all(&order),
                AppAction::Send(Some(worker), order) => self.fleet.send(worker, order),
                AppAction::RemoveCopy(copy) => remove_copy(copy),
                AppAction::Replace => self.replace_workers(),
            }
        }
    }

    /// Sends the outcome of a load to the operator who waits for it.
    pub(super) fn answer(&mut self, reply_id: ReplyId, answer: Result<ReloadReport, CommandError>) {
        if let Some(reply) = self.replies.remove(&reply_id) {
            let _ = reply.send(answer);
        }
    }

    /// Prepares a generation in a background task: reads the library if its bytes are not at hand, writes
    /// the private copy, and opens the copy in a trial process if this content was never opened.
    fn prepare(&mut self, name: &str, generation: u64, spec: Arc<Spec>, source: LibrarySource) {
        let app = name.to_owned();
        let library = self.apps.get(name).map(|app| app.library.clone());
        let (store, preparing) = (Arc::clone(&self.store), Arc::clone(&self.preparing));
        let is_new = !self.opened.contains(&spec.hash);
        let trial = self.trial.clone().filter(|_| is_new);
        self.tasks.spawn(async move {
            // The semaphore is never closed, so a permit always comes.
            let _place = preparing.acquire_owned().await;
            let hash = spec.hash;
            let prepared = prepare(app.clone(), generation, spec, source, store).await;
            let library = library.unwrap_or_default();
            let prepared = match prepared {
                Err(error) => Err(LoadFailure::new(&library, Some(hash), &error)),
                Ok(prepared) => try_open(trial, prepared, &library).await,
            };
            TaskOutcome::Prepared {
                app,
                generation,
                prepared: prepared.map(Box::new),
            }
        });
    }

    pub(super) fn prepared(
        &mut self,
        name: &str,
        generation: u64,
        prepared: Result<Box<(StagedGeneration, StepTimings)>, LoadFailure>,
    ) {
        let workers = self.fleet.ready_workers();
        let are_processes = self.spawner.is_some();
        let Some(app) = self.apps.get_mut(name) else {
            // The app was removed during the preparation.
            if let Ok(prepared) = prepared {
                remove_copy(prepared.0.copy);
            }
            return;
        };
        let actions = match prepared {
            Ok(prepared) => {
                let (staged, timings) = *prepared;
                self.opened.insert(staged.spec.hash);
                app.prepared(staged, timings, &workers, are_processes)
            }
            Err(failure) => app.load_failed(generation, failure),
        };
        self.apply(name, actions);
        self.libraries.mark_changed();
    }

    /// Commits all generations that have started in every worker and whose mounts are free, or become free
    /// by the same commit.
    ///
    /// The set starts with all ready apps. An app whose mount another app keeps leaves the set; that can
    /// block a further app, so the check repeats until the set is stable. All apps in the set are committed
    /// in one order: two apps that exchange their mounts do so at one moment. A blocked app fails, unless
    /// the owner of the mount is itself being loaded with other mounts: then the app waits.
    pub(super) fn commit_what_is_ready(&mut self) {
        let mut ready: BTreeSet<_> = self
            .apps
            .values()
            .filter(|app| app.is_ready())
            .map(|app| app.name.clone())
            .collect();
        let mut blocked = Vec::new();
        while let Some((name, mount, by)) = self.first_blocked(&ready) {
            ready.remove(&name);
            blocked.push((name, mount, by));
        }
        let commits: Vec<_> = ready
            .iter()
            .filter_map(|name| self.apps.get_mut(name)?.commit())
            .collect();
        if !commits.is_empty() {
            self.fleet.send_all(&Order::Commit(commits));
        }
        for (name, mount, by) in blocked {
            // The owner of the mount is about to move away, so this app waits for it.
            let moves = self.apps.get(&by).and_then(App::loading);
            if moves.is_some_and(|loading| !loading.request.spec.mounts.contains(&mount)) {
                continue;
            }
            self.fail_for_mount(&name, mount, by);
        }
    }

    /// Returns an app of `ready` whose next mount belongs to another app after the commit, with the mount
    /// and the owner's name.
    fn first_blocked(&self, ready: &BTreeSet<String>) -> Option<(String, Arc<str>, String)> {
        let next_mounts = |app: &App| {
            let loading = app.loading().filter(|_| ready.contains(&app.name));
            loading.map(|loading| loading.request.spec.mounts.clone())
        };
        for name in ready {
            let app = self.apps.get(name)?;
            for mount in next_mounts(app).unwrap_or_default() {
                let other = self.apps.values().find(|other| {
                    let mounts = next_mounts(other).unwrap_or_else(|| other.mounts.clone());
                    other.name != *name && other.serving.is_some() && mounts.contains(&mount)
                });
                if let Some(other) = other {
                    return Some((name.clone(), mount, other.name.clone()));
                }
            }
        }
        None
    }

    /// Fails the load of an app because the app `by` keeps one of its mounts.
    fn fail_for_mount(&mut self, name: &str, mount: Arc<str>, by: String) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let Some(loading) = app.loading() else { return };
        let (generation, hash) = (loading.generation, loading.request.spec.hash);
        let error = LoadError::Taken(Box::new(TakenError::Mount {
            app: name.to_owned(),
            mount,
            by,
        }));
        let failure = LoadFailure::new(&app.library, Some(hash), &error);
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
    }
}

/// Opens the private copy in a trial process, if there is one. A copy that fails is removed.
async fn try_open(
    trial: Option<Trial>,
    (staged, mut timings): (StagedGeneration, StepTimings),
    library: &Path,
) -> Result<(StagedGeneration, StepTimings), LoadFailure> {
    let Some(trial) = trial else {
        return Ok((staged, timings));
    };
    let began = Instant::now();
    let opened = trial.open(&staged.copy).await;
    timings.open = began.elapsed();
    match opened {
        Ok(()) => Ok((staged, timings)),
        Err(error) => {
            let hash = staged.spec.hash;
            remove_copy(staged.copy);
            Err(LoadFailure::at_step(
                library,
                Some(hash),
                "open".to_owned(),
                error,
            ))
        }
    }
}

/// Reads the library if needed, and writes its private copy.
async fn prepare(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    source: LibrarySource,
    store: Arc<Store>,
) -> Result<(StagedGeneration, StepTimings), LoadError> {
    let candidate = match source {
        LibrarySource::Candidate(candidate) => candidate,
        LibrarySource::File(path) => {
            let read = candidate::examine(path.clone()).await;
            let read = read.map_err(|rejected| rejected.error)?;
            if read.hash() != spec.hash {
                // The file changed since the plan was made. The watcher reports the new content soon.
                return Err(StoreError::Changed { path }.into());
            }
            Arc::new(read)
        }
    };
    let copied = task::spawn_blocking(move || copy(app, generation, spec, &candidate, &store));
    copied
        .await
        .unwrap_or_else(|error| Err(LoadError::Thread(error.into())))
}

/// Writes the private copy of a library. Blocks on the disk.
fn copy(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    candidate: &Candidate,
    store: &Store,
) -> Result<(StagedGeneration, StepTimings), LoadError> {
    let began = Instant::now();
    let copy = store.stage(&candidate.snapshot, &app, generation)?;
    let timings = StepTimings {
        read: candidate.read,
        stage: began.elapsed(),
        ..StepTimings::default()
    };
    let staged = StagedGeneration {
        app,
        generation,
        copy,
        spec,
        version: candidate.manifest.version.clone(),
        max_level: max_level(&candidate.manifest),
    };
    Ok((staged, timings))
}

/// Removes a copy that no worker has opened. A failure costs disk space only: the stop of the server
/// removes the whole folder of copies.
fn remove_copy(copy: PathBuf) {
    task::spawn_blocking(move || std::fs::remove_file(copy));
}
