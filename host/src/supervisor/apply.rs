//! Carries out the actions of the app state machines: sends orders to workers and answers to operators, and writes and
//! removes private copies.

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
        candidate::{self, Candidate, CandidateError},
        store::{Store, StoreError},
    },
    orders::{Order, Spec, StagedGeneration, StepTimings},
    supervisor::{catalog::TakenError, trial::Trial},
};

impl Supervisor {
    /// Carries out the actions that the app `name` has returned, in order.
    pub(super) fn apply(&mut self, name: &str, actions: Vec<AppAction>) {
        for action in actions {
            match action {
                AppAction::Answer(reply_id, answer) => {
                    self.answer(reply_id, answer.map(|report| *report))
                }
                AppAction::Commit => self.commit_ready_apps(),
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

    /// Sends the outcome of a load to the operator who waits for the load.
    pub(super) fn answer(&mut self, reply_id: ReplyId, answer: Result<ReloadReport, CommandError>) {
        if let Some(reply) = self.replies.remove(&reply_id) {
            // The requester may have disconnected.
            let _ = reply.send(answer);
        }
    }

    /// Prepares a generation in a background task: reads the library unless its bytes are in memory, writes the
    /// private copy, and opens the copy in a trial process if this content was never prepared before.
    fn prepare(&mut self, name: &str, generation: u64, spec: Arc<Spec>, source: LibrarySource) {
        let app = name.to_owned();
        let library = self.apps.get(name).map(|app| app.library.clone());
        let (store, permits) = (
            Arc::clone(&self.store),
            Arc::clone(&self.preparation_permits),
        );
        let is_new = !self.passed_trial.contains(&spec.hash);
        let trial = self.trial.clone().filter(|_| is_new);
        self.tasks.spawn(async move {
            // The permit is held until the end of this task. The result is not checked, because the semaphore is never
            // closed.
            let _permit = permits.acquire_owned().await;
            let hash = spec.hash;
            let prepared = prepare(app.clone(), generation, spec, source, store).await;
            let library = library.unwrap_or_default();
            let prepared = match prepared {
                Err(error) => Err(LoadFailure::new(&library, Some(hash), &error)),
                Ok(prepared) => open_in_trial(trial, prepared, &library).await,
            };
            TaskOutcome::Prepared {
                app,
                generation,
                prepared: prepared.map(Box::new),
            }
        });
    }

    /// Handles the end of a preparation: starts the generation, or records the failure.
    pub(super) fn prepared(
        &mut self,
        name: &str,
        generation: u64,
        prepared: Result<Box<(StagedGeneration, StepTimings)>, LoadFailure>,
    ) {
        let workers = self.fleet.ready_workers();
        let has_worker_processes = self.spawner.is_some();
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
                self.passed_trial.insert(staged.spec.hash);
                app.prepared(staged, timings, &workers, has_worker_processes)
            }
            Err(failure) => app.load_failed(generation, failure),
        };
        self.apply(name, actions);
        // If the load failed, the next plan may choose another library of the same plugin.
        self.libraries.mark_changed();
    }

    /// Commits all generations that have started in every worker, and whose mounts are free or become free by the same
    /// commit.
    ///
    /// The set contains all ready apps at first. An app is blocked if another app keeps one of its mounts, and is
    /// removed from the set. The removal can block further apps, so the check repeats until no app in the set is
    /// blocked. All apps in the set are committed with one order, so that two apps exchange their mounts at the same
    /// moment. A blocked app fails, or waits if the owner of the mount is being loaded with other mounts.
    pub(super) fn commit_ready_apps(&mut self) {
        let mut ready: BTreeSet<_> = self
            .apps
            .values()
            .filter(|app| app.is_ready())
            .map(|app| app.name.clone())
            .collect();
        let mut blocked = Vec::new();
        while let Some((name, mount, owner)) = self.first_blocked(&ready) {
            ready.remove(&name);
            blocked.push((name, mount, owner));
        }
        let commits: Vec<_> = ready
            .iter()
            .filter_map(|name| self.apps.get_mut(name)?.commit())
            .collect();
        if !commits.is_empty() {
            self.fleet.send_all(&Order::Commit(commits));
        }
        for (name, mount, owner) in blocked {
            // The load of the owner will free the mount, so this app waits until that load is committed or fails.
            let owner_load = self.apps.get(&owner).and_then(App::loading);
            if owner_load.is_some_and(|loading| !loading.request.spec.mounts.contains(&mount)) {
                continue;
            }
            self.fail_for_mount(&name, mount, owner);
        }
    }

    /// Returns an app of `ready` that another app blocks, the mount, and the name of the mount's owner. Returns `None`
    /// if no app is blocked.
    fn first_blocked(&self, ready: &BTreeSet<String>) -> Option<(String, Arc<str>, String)> {
        // The mounts that an app has after the commit, or `None` if the commit does not change the app.
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

    /// Fails the load of an app because the app `owner` keeps one of its mounts.
    fn fail_for_mount(&mut self, name: &str, mount: Arc<str>, owner: String) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let Some(loading) = app.loading() else { return };
        let (generation, hash) = (loading.generation, loading.request.spec.hash);
        let error = TakenError::Mount {
            app: name.to_owned(),
            mount,
            by: owner,
        };
        let failure = LoadFailure::mount_taken(&app.library, Some(hash), &error);
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
    }
}

/// Opens the private copy in a trial process. Does nothing if `trial` is `None`. Removes the copy if the trial fails.
async fn open_in_trial(
    trial: Option<Trial>,
    (staged, mut timings): (StagedGeneration, StepTimings),
    library: &Path,
) -> Result<(StagedGeneration, StepTimings), LoadFailure> {
    let Some(trial) = trial else {
        return Ok((staged, timings));
    };
    let began = Instant::now();
    let opened = trial.open(&staged.copy).await;
    // The report adds the time that the first worker needs to open the library again.
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

/// Reads the library unless its bytes are in memory, and writes its private copy.
async fn prepare(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    source: LibrarySource,
    store: Arc<Store>,
) -> Result<(StagedGeneration, StepTimings), CandidateError> {
    let candidate = match source {
        LibrarySource::Candidate(candidate) => candidate,
        LibrarySource::File(path) => {
            let read = candidate::examine(path.clone()).await;
            let read = read.map_err(|rejected| rejected.error)?;
            if read.hash() != spec.hash {
                // The file has changed after the plan was made. The watcher reports the new content soon.
                return Err(StoreError::Changed { path }.into());
            }
            Arc::new(read)
        }
    };
    let copied = task::spawn_blocking(move || copy(app, generation, spec, &candidate, &store));
    copied
        .await
        .unwrap_or_else(|error| Err(CandidateError::Thread(error.into())))
}

/// Writes the private copy of a library. Blocks on the disk.
fn copy(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    candidate: &Candidate,
    store: &Store,
) -> Result<(StagedGeneration, StepTimings), CandidateError> {
    let began = Instant::now();
    let copy = store.stage(&candidate.snapshot, &app, generation)?;
    let timings = StepTimings {
        read: candidate.read_time,
        stage: began.elapsed(),
        ..StepTimings::default()
    };
    let staged = StagedGeneration {
        app,
        generation,
        copy,
        spec,
        version: candidate.manifest.version.clone(),
        max_level: candidate.max_level(),
    };
    Ok((staged, timings))
}

/// Removes a private copy that no worker needs. A failure is ignored, because the stop of the server removes the whole
/// folder of copies.
fn remove_copy(copy: PathBuf) {
    task::spawn_blocking(move || std::fs::remove_file(copy));
}
