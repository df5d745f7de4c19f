//! Does what an app's state machine says: tells workers, answers who asked, writes private copies.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::task;

use super::{
    Done, Supervisor,
    app::{Action, App, AskId, Source},
    error::AskError,
    outcome::{Failure, Proof},
};
use crate::{
    folder::{
        candidate::{self, Candidate},
        store::{Store, StoreError},
    },
    orders::{Order, Spec, Started, Took},
    supervisor::catalog::Taken,
    worker::{
        load::{LoadError, max_level},
        trial::Trial,
    },
};

impl Supervisor {
    /// Does what the app `name` says.
    pub(super) fn apply(&mut self, name: &str, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Answer(ask, answer) => self.answer(ask, answer.map(|proof| *proof)),
                Action::Commit => self.commit_what_is_ready(),
                Action::Prepare {
                    generation,
                    spec,
                    source,
                } => self.prepare(name, generation, spec, source),
                Action::Send(None, order) => self.fleet.send_all(&order),
                Action::Send(Some(worker), order) => self.fleet.send(worker, order),
                Action::RemoveCopy(copy) => remove_copy(copy),
                Action::Replace => self.replace_workers(),
            }
        }
    }

    /// Answers who asked, unless they are gone.
    pub(super) fn answer(&mut self, ask: AskId, answer: Result<Proof, AskError>) {
        if let Some(reply) = self.asks.remove(&ask) {
            let _ = reply.send(answer);
        }
    }

    /// Reads the source, if need be, and writes the private copy, elsewhere.
    fn prepare(&mut self, name: &str, generation: u64, spec: Arc<Spec>, source: Source) {
        let app = name.to_owned();
        let library = self.apps.get(name).map(|app| app.library.clone());
        let (store, preparing) = (Arc::clone(&self.store), Arc::clone(&self.preparing));
        let is_new = !self.opened.contains(&spec.hash);
        let trial = self.trial.clone().filter(|_| is_new);
        self.tasks.spawn(async move {
            // Nobody closes the semaphore.
            let _place = preparing.acquire_owned().await;
            let hash = spec.hash;
            let prepared = prepare(app.clone(), generation, spec, source, store).await;
            let library = library.unwrap_or_default();
            let prepared = match prepared {
                Err(error) => Err(Failure::new(&library, Some(hash), &error)),
                Ok(prepared) => try_open(trial, prepared, &library).await,
            };
            Done::Prepared {
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
        prepared: Result<Box<(Started, Took)>, Failure>,
    ) {
        let workers = self.fleet.taking_part();
        let are_processes = self.workers.is_some();
        let Some(app) = self.apps.get_mut(name) else {
            // It was removed meanwhile.
            if let Ok(prepared) = prepared {
                remove_copy(prepared.0.copy);
            }
            return;
        };
        let actions = match prepared {
            Ok(prepared) => {
                let (started, took) = *prepared;
                self.opened.insert(started.spec.hash);
                app.prepared(started, took, &workers, are_processes)
            }
            Err(failure) => app.load_failed(generation, failure),
        };
        self.apply(name, actions);
        self.libraries.touch();
    }

    /// Commits the generations that have started in all workers, and whose mounts are free or become
    /// free at the same moment.
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
            // One that is about to move away is waited for.
            let moves = self.apps.get(&by).and_then(App::loading);
            if moves.is_some_and(|loading| !loading.wanted.spec.mounts.contains(&mount)) {
                continue;
            }
            self.fail_for_mount(&name, mount, by);
        }
    }

    /// An app of `ready` with a mount that another app has and does not leave with it.
    fn first_blocked(&self, ready: &BTreeSet<String>) -> Option<(String, Arc<str>, String)> {
        let next_mounts = |app: &App| {
            let loading = app.loading().filter(|_| ready.contains(&app.name));
            loading.map(|loading| loading.wanted.spec.mounts.clone())
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

    fn fail_for_mount(&mut self, name: &str, mount: Arc<str>, by: String) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let Some(loading) = app.loading() else { return };
        let (generation, hash) = (loading.generation, loading.wanted.spec.hash);
        let error = LoadError::Taken(Box::new(Taken::Mount {
            app: name.to_owned(),
            mount,
            by,
        }));
        let failure = Failure::new(&app.library, Some(hash), &error);
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
    }
}

/// Opens a library that was never opened before in a process of its own.
async fn try_open(
    trial: Option<Trial>,
    (started, mut took): (Started, Took),
    library: &Path,
) -> Result<(Started, Took), Failure> {
    let Some(trial) = trial else {
        return Ok((started, took));
    };
    let began = Instant::now();
    let opened = trial.open(&started.copy).await;
    took.open = began.elapsed();
    match opened {
        Ok(()) => Ok((started, took)),
        Err(error) => {
            let hash = started.spec.hash;
            remove_copy(started.copy);
            Err(Failure::at_step(
                library,
                Some(hash),
                "open".to_owned(),
                error,
            ))
        }
    }
}

async fn prepare(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    source: Source,
    store: Arc<Store>,
) -> Result<(Started, Took), LoadError> {
    let candidate = match source {
        Source::Candidate(candidate) => candidate,
        Source::File(path) => {
            let read = candidate::examine(path.clone()).await;
            let read = read.map_err(|rejected| rejected.error)?;
            if read.hash() != spec.hash {
                // The watcher is about to tell.
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

fn copy(
    app: String,
    generation: u64,
    spec: Arc<Spec>,
    candidate: &Candidate,
    store: &Store,
) -> Result<(Started, Took), LoadError> {
    let began = Instant::now();
    let copy = store.stage(&candidate.snapshot, &app, generation)?;
    let took = Took {
        read: candidate.read,
        stage: began.elapsed(),
        ..Took::default()
    };
    let started = Started {
        app,
        generation,
        copy,
        spec,
        version: candidate.manifest.version.clone(),
        max_level: max_level(&candidate.manifest),
    };
    Ok((started, took))
}

/// Removes a copy that no worker has opened. A copy that cannot be removed costs room only, and goes
/// with the others at the stop.
fn remove_copy(copy: PathBuf) {
    task::spawn_blocking(move || std::fs::remove_file(copy));
}
