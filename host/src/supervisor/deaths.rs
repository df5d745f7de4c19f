//! Workers that end: what is said of it, who is to blame, and when another one starts.

use std::time::{Duration, Instant, SystemTime};

use tokio::{task, time};
use tracing::{error, info, warn};

use super::{
    Done, Supervisor,
    app::{Action, Aside, Blame, WorkerId},
    autopsy::{self, Death, Evidence, Generation},
    backoff::Verdict,
    outcome::Failure,
    roster::Died,
    workers::Gone,
};

impl Supervisor {
    /// Starts workers until there are as many as there are to be.
    pub(super) fn hire(&mut self) {
        let Some(workers) = &self.workers else { return };
        while self.staying() + self.hiring < self.wanted_workers {
            let id = self.fleet.next_id();
            let link = workers.start(id);
            self.fleet.add(id, link);
        }
    }

    /// A worker's process has ended.
    pub(super) fn gone(&mut self, worker: WorkerId, gone: Gone) {
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
            self.note_death(Died {
                worker,
                pid: gone.pid,
                at: SystemTime::now(),
                what: death.what.clone(),
                plugin: blamed.as_ref().map(|blame| blame.app.clone()),
                generation: blamed.as_ref().map(|blame| blame.generation),
            });
            say_died(worker, gone, death);
        }
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let app = self.apps.get_mut(&name);
            let actions = app.map(|app| app.worker_gone(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
        for app in self.removed.values_mut() {
            app.worker_gone(worker);
        }
        self.forget_asked(worker);
        if let Some(blame) = &blamed {
            self.hold_responsible(blame);
        }
        self.libraries.touch();
        self.remove_unused_copies();
        let was_replaced = self.replaces(worker).is_some() || left.is_leaving;
        self.recycled(worker);
        if !was_replaced {
            let wait = match blamed {
                // The guilty app is counted, so that the restarts have an end.
                Some(_) => Duration::ZERO,
                None => self.backoff.crashed(Instant::now()),
            };
            self.hire_after(wait);
        }
    }

    /// A worker's process has ended while the server stops.
    pub(super) fn gone_at_last(&mut self, worker: WorkerId, gone: Gone) {
        self.fleet.remove(worker);
        if !gone.ended.as_ref().is_ok_and(|ended| ended.is_success()) {
            let death = self.examine(&[], &gone);
            say_died(worker, gone, death);
        }
    }

    fn hire_after(&mut self, wait: Duration) {
        if wait.is_zero() {
            return self.hire();
        }
        warn!(
            ?wait,
            "The next worker starts after a wait, as workers keep ending"
        );
        self.hiring += 1;
        self.tasks.spawn(async move {
            time::sleep(wait).await;
            Done::Hire
        });
    }

    /// What ended a worker, and who is to blame. `loading` are the loads that were in the plugin's code.
    fn examine(&self, loading: &[(String, u64)], gone: &Gone) -> Death {
        let status = match &gone.ended {
            Ok(status) => *status,
            Err(error) => return Death::never_began(error.clone()),
        };
        if let Some(dumps) = &gone.hung {
            let timeout = self.workers.as_ref().map(|workers| workers.timeout);
            return autopsy::examine_hung(&gone.board, dumps, timeout.unwrap_or_default());
        }
        let loading: Vec<_> = loading.iter().map(Generation::from).collect();
        let probation = self.apps.values().filter_map(|app| {
            let serving = app.probation().and(app.serving.as_ref())?;
            Some(Generation {
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

    /// Counts the crash, and puts the generation aside when it crashed too often or at its start.
    fn hold_responsible(&mut self, blame: &Blame) {
        let Some(app) = self.apps.get_mut(&blame.app) else {
            return;
        };
        let Some(hash) = app.hash_of(blame.generation) else {
            return;
        };
        let key = (blame.app.clone(), hash);
        let crashes = match self.crashes.crashed(key, Instant::now()) {
            Verdict::PutAside(crashes) => Some(crashes),
            Verdict::Again(crashes) => blame.while_starting.then_some(crashes),
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
        let failure = Failure {
            file: app.library.display().to_string(),
            hash: Some(hash.short()),
            step: "crash".to_owned(),
            error,
            at: SystemTime::now(),
        };
        let actions = app.put_aside(blame.generation, hash, failure);
        self.apply(&blame.app, actions);
    }

    /// Removes the private copies that no worker has opened any more and no app may start again.
    pub(super) fn remove_unused_copies(&mut self) {
        let apps = self.apps.values().chain(self.removed.values());
        let apps: Vec<_> = apps.collect();
        let unused = self
            .fleet
            .unused_copies(|copy| apps.iter().any(|app| app.needs(copy)));
        let name = String::new();
        let actions = unused.into_iter().map(Action::RemoveCopy).collect();
        self.apply(&name, actions);
    }

    /// Lifts what was put aside for an app, as the operator asks for it.
    pub(super) fn forgive(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name) {
            for hash in app.aside.keys() {
                self.crashes.forget(&(name.to_owned(), *hash));
            }
            app.aside
                .retain(|_, aside| !matches!(aside, Aside::Crashed(_)));
        }
    }
}

/// Whom a death is counted against.
fn blame(death: &Death) -> Option<Blame> {
    let autopsy::Blame { generation, reason } = death.blame.clone()?;
    Some(Blame {
        app: generation.app,
        generation: generation.number,
        while_starting: reason.is_start(),
    })
}

/// Says what ended a worker, with the place in the code: looking that up takes its time, which nobody waits for.
fn say_died(worker: WorkerId, gone: Gone, mut death: Death) {
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

fn list(generations: &[Generation]) -> String {
    let each: Vec<_> = generations.iter().map(ToString::to_string).collect();
    each.join(", ")
}
