//! Handles the exit of workers: the autopsy, the consequences for the blamed app, and the next start.

use std::time::{Duration, Instant, SystemTime};

use tokio::{task, time};
use tracing::{error, info, warn};

use super::{
    Supervisor, TaskOutcome,
    app::{AppAction, AsideReason, Suspect, WorkerId},
    autopsy::{self, Death, Evidence, GenerationId},
    backoff::CrashVerdict,
    outcome::LoadFailure,
    roster::WorkerDeath,
    workers::WorkerExit,
};

impl Supervisor {
    /// Starts workers until the target number is reached. Workers whose start is delayed count as started.
    pub(super) fn start_missing_workers(&mut self) {
        let Some(spawner) = &self.spawner else { return };
        while self.staying_workers() + self.delayed_starts < self.wanted_workers {
            let id = self.fleet.next_id();
            let link = spawner.start(id);
            self.fleet.add(id, link);
        }
    }

    /// Handles the exit of a worker process.
    ///
    /// An unexpected exit is examined and logged. Then the worker is removed from every app, query and recycling, and
    /// the crash is counted against the blamed app. Last, a new worker starts: at once if an app is blamed, otherwise
    /// after the delay of [`Backoff`](super::backoff::Backoff). No new worker starts for a worker that was replaced or
    /// had the order to stop.
    pub(super) fn worker_exited(&mut self, worker: WorkerId, exit: WorkerExit) {
        let Some(record) = self.fleet.remove(worker) else {
            return;
        };
        let is_good = exit.status.as_ref().is_ok_and(|status| status.is_success());
        // A worker that has the order to stop must exit with code 0. Any other exit is a crash.
        let is_expected = record.is_killed || (record.is_leaving && is_good);
        if is_expected {
            info!(worker, pid = exit.pid, "Worker ended");
        }
        let mut blamed = None;
        if !is_expected {
            let death = self.examine(&record.loading(), &exit);
            blamed = suspect(&death);
            self.remember_death(WorkerDeath {
                worker,
                pid: exit.pid,
                at: SystemTime::now(),
                what: death.cause.clone(),
                plugin: blamed.as_ref().map(|blame| blame.app.clone()),
                generation: blamed.as_ref().map(|blame| blame.generation),
            });
            log_death(worker, exit, death);
        }
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let app = self.apps.get_mut(&name);
            let actions = app.map(|app| app.remove_worker(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
        // An operator may wait for the last drain of an app that was removed meanwhile.
        for name in self.removed.keys().cloned().collect::<Vec<_>>() {
            let app = self.removed.get_mut(&name);
            let actions = app.map(|app| app.remove_worker(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
        self.forget_queries_of(worker);
        if let Some(blame) = &blamed {
            self.count_crash(blame);
        }
        self.libraries.mark_changed();
        // The worker may have been the last one that had opened a private copy.
        self.remove_unused_copies();
        // Read before `recycle_after_exit`, which ends the replacement that `worker` belongs to.
        let was_replaced = self.replaced_by(worker).is_some() || record.is_leaving;
        self.recycle_after_exit(worker);
        if !was_replaced {
            let wait = match blamed {
                // No delay is needed, because the restarts end when the blamed app is put aside.
                Some(_) => Duration::ZERO,
                None => self.backoff.crashed(Instant::now()),
            };
            self.start_missing_workers_after(wait);
        }
    }

    /// Handles the exit of a worker process while the server stops. Only a failure is logged.
    pub(super) fn worker_exited_while_stopping(&mut self, worker: WorkerId, exit: WorkerExit) {
        self.fleet.remove(worker);
        if !exit.status.as_ref().is_ok_and(|status| status.is_success()) {
            let death = self.examine(&[], &exit);
            log_death(worker, exit, death);
        }
    }

    /// Starts the missing workers after a delay.
    fn start_missing_workers_after(&mut self, wait: Duration) {
        if wait.is_zero() {
            return self.start_missing_workers();
        }
        warn!(
            ?wait,
            "The next worker starts after a delay, because workers keep ending"
        );
        // Counted, so that no other event starts the worker before the delay has ended.
        self.delayed_starts += 1;
        self.tasks.spawn(async move {
            time::sleep(wait).await;
            TaskOutcome::StartDelayedWorker
        });
    }

    /// Returns the result of the autopsy of a worker. `loading` lists the loads that were running a library's code.
    fn examine(&self, loading: &[(String, u64)], exit: &WorkerExit) -> Death {
        let status = match &exit.status {
            Ok(status) => *status,
            Err(error) => return Death::never_started(error.clone()),
        };
        if let Some(dumps) = &exit.hang_dumps {
            let timeout = self.spawner.as_ref().map(|spawner| spawner.timeout);
            return autopsy::examine_hung(&exit.board, dumps, timeout.unwrap_or_default());
        }
        let loading: Vec<_> = loading.iter().map(GenerationId::from).collect();
        let probation = self.apps.values().filter_map(|app| {
            let serving = app.probation().and(app.serving.as_ref())?;
            Some(GenerationId {
                app: app.name.clone(),
                number: serving.generation,
            })
        });
        autopsy::examine(&Evidence {
            status,
            board: &exit.board,
            loading: &loading,
            probation: &probation.collect::<Vec<_>>(),
            last_words: &exit.last_words.join("\n"),
            out_of_memory: exit.out_of_memory,
        })
    }

    /// Counts a crash against the blamed generation. Puts the generation aside if its content has crashed too often, or
    /// if the generation crashed while it was starting.
    fn count_crash(&mut self, blame: &Suspect) {
        let Some(app) = self.apps.get_mut(&blame.app) else {
            return;
        };
        // The content of a generation that the app does not store any more is unknown, so it cannot be put aside.
        let Some(hash) = app.hash_of(blame.generation) else {
            return;
        };
        let key = (blame.app.clone(), hash);
        let crashes = match self.crashes.crashed(key, Instant::now()) {
            CrashVerdict::PutAside(crashes) => Some(crashes),
            CrashVerdict::Restart(crashes) => blame.was_starting.then_some(crashes),
        };
        let Some(crashes) = crashes else { return };
        let error = if blame.was_starting {
            "the worker that started it died".to_owned()
        } else {
            format!("{crashes} workers died of it")
        };
        error!(
            plugin = app.name,
            generation = blame.generation,
            hash = hash.short(),
            crashes,
            file = %app.library.display(),
            "Put aside: this library is not loaded again until it changes or host ctl reload asks for it"
        );
        let failure = LoadFailure {
            file: app.library.display().to_string(),
            hash: Some(hash.short()),
            step: "crash".to_owned(),
            error,
            at: SystemTime::now(),
        };
        let actions = app.put_aside(blame.generation, hash, failure);
        self.apply(&blame.app, actions);
    }

    /// Removes the private copies of exited workers that no running worker has opened and no app needs.
    pub(super) fn remove_unused_copies(&mut self) {
        let apps = self.apps.values().chain(self.removed.values());
        let apps: Vec<_> = apps.collect();
        let unused = self
            .fleet
            .unused_copies(|copy| apps.iter().any(|app| app.uses_copy(copy)));
        // The name is empty, because the removal of a copy concerns no app.
        let name = String::new();
        let actions = unused.into_iter().map(AppAction::RemoveCopy).collect();
        self.apply(&name, actions);
    }

    /// Forgets the crashes of an app. The contents that were put aside after crashes can be loaded again.
    pub(super) fn forget_crashes(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name) {
            for hash in app.aside.keys() {
                self.crashes.forget(&(name.to_owned(), *hash));
            }
            app.aside
                .retain(|_, aside| !matches!(aside, AsideReason::Crashed(_)));
        }
    }
}

/// Returns the generation that the crash is counted against, or `None` if no app is blamed.
fn suspect(death: &Death) -> Option<Suspect> {
    let autopsy::Blame { generation, reason } = death.blame.clone()?;
    Some(Suspect {
        app: generation.app,
        generation: generation.number,
        was_starting: reason.is_during_load(),
    })
}

/// Logs the death of a worker, with the function and line of the crash. The lookup of the function may take seconds, so
/// the line is written by a blocking thread, and the start of the next worker does not wait for that.
fn log_death(worker: WorkerId, exit: WorkerExit, mut death: Death) {
    // The caller removes private copies soon, so the libraries are opened before the thread starts.
    death.open_libraries();
    task::spawn_blocking(move || {
        let death = death.locate();
        let blame = death.blame.as_ref();
        let (generation, reason) = (
            blame.map(|blame| &blame.generation),
            blame.map(|blame| blame.reason),
        );
        let request = death.request.as_ref();
        let suspects = match blame {
            None if !death.suspects.is_empty() => Some(join_names(&death.suspects)),
            _ => None,
        };
        error!(
            worker,
            pid = exit.pid,
            plugin = generation.map(|generation| &*generation.app),
            generation = generation.map(|generation| generation.number),
            reason = reason.map(tracing::field::display),
            request = request.map(|request| &*request.id),
            method = request.map(|request| &*request.method),
            path = request.map(|request| &*request.path),
            thread = death.thread.as_deref(),
            at = death.frame().map(tracing::field::display),
            at_work = suspects,
            last_words = exit.last_words.last(),
            "Worker died: {}",
            death.cause
        );
    });
}

/// Returns the generations as a list, separated by commas.
fn join_names(generations: &[GenerationId]) -> String {
    let each: Vec<_> = generations.iter().map(ToString::to_string).collect();
    each.join(", ")
}
