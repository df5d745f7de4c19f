//! Workers that end: what is said of it, who is to blame, and when another one starts.

use std::time::{Duration, Instant, SystemTime};

use tokio::time;
use tracing::{error, info, warn};

use super::{
    Done, Supervisor,
    app::{Action, Aside, Blame, WorkerId},
    backoff::Verdict,
    report::Failure,
    workers::Gone,
};

impl Supervisor {
    /// Starts workers until there are as many as there are to be.
    pub(super) fn hire(&mut self) {
        let Some(workers) = &self.workers else { return };
        while self.fleet.staying() + self.hiring < self.wanted_workers {
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
            blamed = self.blame(&left.loading(), &gone);
            self.say_died(worker, &gone, blamed.as_ref());
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
            self.say_died(worker, &gone, None);
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

    /// Who is to blame: the one load that was in the plugin's code.
    fn blame(&self, loading: &[(String, u64)], _gone: &Gone) -> Option<Blame> {
        let [(app, generation)] = loading else {
            return None;
        };
        Some(Blame {
            app: app.clone(),
            generation: *generation,
            while_starting: true,
        })
    }

    fn say_died(&self, worker: WorkerId, gone: &Gone, blamed: Option<&Blame>) {
        let what = match &gone.ended {
            Ok(ended) => ended.to_string(),
            Err(error) => error.clone(),
        };
        let last_words = gone.last_words.last();
        error!(
            worker,
            pid = gone.pid,
            plugin = blamed.map(|blamed| &*blamed.app),
            generation = blamed.map(|blamed| blamed.generation),
            last_words,
            "Worker died: {what}"
        );
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
