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
    /// Starts workers up to the target number. Workers whose start is delayed count as started.
    pub(super) fn start_missing_workers(&mut self) {
        let Some(workers) = &self.spawner else { return };
        while self.staying() + self.delayed_starts < self.wanted_workers {
            let id = self.fleet.next_id();
            let link = workers.start(id);
            self.fleet.add(id, link);
        }
    }

    /// Handles the exit of a worker process.
    ///
    /// An unexpected exit is examined and logged. Then every app, query and recycling forgets the worker,
    /// the blamed app is counted, and a new worker starts: at once if an app is blamed, else after the
    /// delay of [`Backoff`](super::backoff::Backoff). A worker that was replaced or told to stop gets no
    /// successor here.
    pub(super) fn worker_exited(&mut self, worker: WorkerId, gone: WorkerExit) {
        let Some(left) = self.fleet.remove(worker) else {
            return;
        };
        let is_good = gone.ended.as_ref().is_ok_and(|ended| ended.is_success());
        let is_expected = left.is_killed || (left.is_leaving && is_good);
        if is_expected {
            info!(worker, pid = gone.pid, "Worker ended");
        }
        let mut blamed = None;
        if !is_expected {
            let death = self.examine(&left.loading(), &gone);
            blamed = blame(&death);
            self.remember_death(WorkerDeath {
                worker,
                pid: gone.pid,
                at: SystemTime::now(),
                what: death.what.clone(),
                plugin: blamed.as_ref().map(|blame| blame.app.clone()),
                generation: blamed.as_ref().map(|blame| blame.generation),
            });
            log_death(worker, gone, death);
        }
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let app = self.apps.get_mut(&name);
            let actions = app.map(|app| app.worker_gone(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
        for app in self.removed.values_mut() {
            app.worker_gone(worker);
        }
        self.forget_queries_of(worker);
        if let Some(blame) = &blamed {
            self.count_crash(blame);
        }
        self.libraries.mark_changed();
        self.remove_unused_copies();
        let was_replaced = self.replaces(worker).is_some() || left.is_leaving;
        self.recycled(worker);
        if !was_replaced {
            let wait = match blamed {
                // Restarts end when the blamed app is put aside, so no delay is needed.
                Some(_) => Duration::ZERO,
                None => self.backoff.crashed(Instant::now()),
            };
            self.start_missing_workers_after(wait);
        }
    }

    /// Handles the exit of a worker process while the server stops. Only a failure is logged.
    pub(super) fn worker_exited_at_stop(&mut self, worker: WorkerId, gone: WorkerExit) {
        self.fleet.remove(worker);
        if !gone.ended.as_ref().is_ok_and(|ended| ended.is_success()) {
            let death = self.examine(&[], &gone);
            log_death(worker, gone, death);
        }
    }

    /// Starts the missing workers after a delay.
    fn start_missing_workers_after(&mut self, wait: Duration) {
        if wait.is_zero() {
            return self.start_missing_workers();
        }
        warn!(
            ?wait,
            "The next worker starts after a wait, as workers keep ending"
        );
        self.delayed_starts += 1;
        self.tasks.spawn(async move {
            time::sleep(wait).await;
            TaskOutcome::Hire
        });
    }

    /// Performs the autopsy of a worker. `loading` lists the loads that were inside a library's code.
    fn examine(&self, loading: &[(String, u64)], gone: &WorkerExit) -> Death {
        let status = match &gone.ended {
            Ok(status) => *status,
            Err(error) => return Death::never_began(error.clone()),
        };
        if let Some(dumps) = &gone.hung {
            let timeout = self.spawner.as_ref().map(|workers| workers.timeout);
            return autopsy::examine_hung(&gone.board, dumps, timeout.unwrap_or_default());
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
            board: &gone.board,
            loading: &loading,
            probation: &probation.collect::<Vec<_>>(),
            last_words: &gone.last_words.join("\n"),
            out_of_memory: gone.out_of_memory,
        })
    }

    /// Counts a crash against the blamed generation. Puts the generation aside when it has crashed too often,
    /// or when it crashed before it ever served.
    fn count_crash(&mut self, blame: &Suspect) {
        let Some(app) = self.apps.get_mut(&blame.app) else {
            return;
        };
        let Some(hash) = app.hash_of(blame.generation) else {
            return;
        };
        let key = (blame.app.clone(), hash);
        let crashes = match self.crashes.crashed(key, Instant::now()) {
            CrashVerdict::PutAside(crashes) => Some(crashes),
            CrashVerdict::Again(crashes) => blame.while_starting.then_some(crashes),
        };
        let Some(crashes) = crashes else { return };
        let error = if blame.while_starting {
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

    /// Removes the private copies that no running worker has opened and no app can roll back to.
    pub(super) fn remove_unused_copies(&mut self) {
        let apps = self.apps.values().chain(self.removed.values());
        let apps: Vec<_> = apps.collect();
        let unused = self
            .fleet
            .unused_copies(|copy| apps.iter().any(|app| app.uses_copy(copy)));
        let name = String::new();
        let actions = unused.into_iter().map(AppAction::RemoveCopy).collect();
        self.apply(&name, actions);
    }

    /// Forgets the crashes of an app, so that contents that were put aside can be loaded again.
    pub(super) fn lift_aside(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name) {
            for hash in app.aside.keys() {
                self.crashes.forget(&(name.to_owned(), *hash));
            }
            app.aside
                .retain(|_, aside| !matches!(aside, AsideReason::Crashed(_)));
        }
    }
}

/// Returns the generation that a death is counted against.
fn blame(death: &Death) -> Option<Suspect> {
    let autopsy::Blame { generation, reason } = death.blame.clone()?;
    Some(Suspect {
        app: generation.app,
        generation: generation.number,
        while_starting: reason.is_start(),
    })
}

/// Logs the death of a worker with its place in the code. The lookup of the place may take seconds, so it runs
/// on a blocking thread and the restart does not wait for it.
fn log_death(worker: WorkerId, gone: WorkerExit, mut death: Death) {
    death.hold();
    task::spawn_blocking(move || {
        let death = death.locate();
        let blame = death.blame.as_ref();
        let (generation, reason) = (
            blame.map(|blame| &blame.generation),
            blame.map(|blame| blame.reason),
        );
        let request = death.request.as_ref();
        let suspects = match blame {
            None if !death.suspects.is_empty() => Some(list(&death.suspects)),
            _ => None,
        };
        error!(
            worker,
            pid = gone.pid,
            plugin = generation.map(|generation| &*generation.app),
            generation = generation.map(|generation| generation.number),
            reason = reason.map(tracing::field::display),
            request = request.map(|request| &*request.id),
            method = request.map(|request| &*request.method),
            path = request.map(|request| &*request.path),
            thread = death.thread.as_deref(),
            at = death.frame().map(tracing::field::display),
            at_work = suspects,
            last_words = gone.last_words.last(),
            "Worker died: {}",
            death.what
        );
    });
}

fn list(generations: &[GenerationId]) -> String {
    let each: Vec<_> = generations.iter().map(ToString::to_string).collect();
    each.join(", ")
}
