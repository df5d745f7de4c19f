//! Handles the notices of workers.
//!
//! A notice about a load has three possible addressees: the boot of a worker, a reload by process, or
//! the normal load of an app. The checks run in this order, because a generation that a booting worker
//! loads usually serves elsewhere already.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time;

use super::{
    Supervisor, TaskOutcome,
    app::{LoadReport, WorkerId},
    outcome::LoadFailure,
    recycle::RecycleReason,
};
use crate::orders::{Notice, Order};

impl Supervisor {
    pub(super) fn notice(&mut self, worker: WorkerId, notice: Notice) {
        match notice {
            Notice::Ready => self.ready(worker),
            Notice::Step {
                app,
                generation,
                step,
            } => {
                self.fleet.record_step(worker, &app, generation, step);
                if let Some(app) = self.apps.get_mut(&app) {
                    app.record_step(generation, step);
                }
            }
            Notice::Loaded {
                app,
                generation,
                timings,
                handed_over,
                hands_over,
            } => {
                self.fleet.load_ended(worker, &app, generation);
                self.recycling.forget_state(worker, &app);
                if self.fleet.is_booting(worker, &app, generation) {
                    return;
                }
                if let Some(app) = self.apps.get_mut(&app)
                    && app.is_replacement(generation)
                {
                    // The generation has started with the state from the worker that is being replaced.
                    app.replaced_in(worker, hands_over);
                    return self.finish_replacements();
                }
                let report = LoadReport {
                    timings,
                    handed_over,
                    hands_over,
                };
                let workers = self.fleet.ready_workers();
                let actions = match self.apps.get_mut(&app) {
                    Some(app) => app.loaded(worker, generation, report, &workers),
                    None => Vec::new(),
                };
                self.apply(&app, actions);
            }
            Notice::Failed {
                app,
                generation,
                step,
                error,
            } => {
                self.fleet.load_ended(worker, &app, generation);
                self.failed(worker, &app, generation, step, error);
            }
            Notice::Swapped {
                app,
                generation,
                took,
                in_flight,
            } => self.swapped(worker, &app, generation, took, in_flight),
            Notice::Judged {
                app,
                generation,
                failed,
            } => {
                let actions = match self.apps.get_mut(&app) {
                    Some(app) => app.probation_ended(worker, generation, failed),
                    None => Vec::new(),
                };
                self.apply(&app, actions);
                self.libraries.mark_changed();
            }
            Notice::Retired {
                app,
                generation,
                drained,
                aborted,
            } => {
                let known = self
                    .apps
                    .get_mut(&app)
                    .or_else(|| self.removed.get_mut(&app));
                let actions = match known {
                    Some(app) => app.retired(worker, generation, drained, aborted),
                    None => Vec::new(),
                };
                self.apply(&app, actions);
            }
            Notice::InForce {
                number,
                unconfirmed,
            } => self.in_force(worker, number, unconfirmed),
            Notice::Report { number, report } => self.reported(worker, number, *report),
            Notice::LoadsLeft(left) => self.loads_left(worker, left),
            Notice::State { app, state } => self.state_received(worker, &app, state),
            // For a worker process the exit of the process counts, which comes soon after.
            Notice::Stopped if self.spawner.is_some() => {}
            Notice::Stopped => {
                self.fleet.remove(worker);
            }
        }
    }

    /// Handles a worker that is ready for orders: sends it the level, all mounts, and the generations that
    /// serve.
    ///
    /// Requests to a mount get 503 until its app has started (`Hold`). If the worker replaces another one,
    /// apps with state wait for that state, and so do their requests (`Await`): the old worker hands the
    /// state over when its last requests have ended. The worker also joins the loads that are under way.
    fn ready(&mut self, worker: WorkerId) {
        let mut starts = Vec::new();
        if let Some(workers) = &self.spawner {
            // The level may have changed since the worker's setup was made.
            let directives = workers.filter.directives().to_string();
            self.fleet.send(
                worker,
                Order::SetLevel {
                    number: 0,
                    directives,
                },
            );
        }
        let mut waiting = BTreeMap::new();
        let replaces = self.replaces(worker).is_some();
        for app in self.apps.values_mut() {
            let staged = app.for_new_worker(replaces).cloned();
            if replaces {
                app.start_replacing_in(worker);
            }
            // An app with state starts later, when the replaced worker has given the state.
            let waits = replaces && app.hands_over && staged.is_some();
            let (name, mounts) = (app.name.clone(), app.mounts.clone());
            let order = if waits {
                Order::Await { app: name, mounts }
            } else {
                Order::Hold { app: name, mounts }
            };
            self.fleet.send(worker, order);
            match staged {
                Some(staged) if waits => {
                    waiting.insert(app.name.clone(), staged);
                }
                staged => starts.extend(staged),
            }
        }
        if let Some(current) = &mut self.recycling.current
            && current.new == worker
        {
            current.wait_for_state = waiting;
        }
        if self.fleet.boot(worker, starts) {
            self.accepts(worker);
        }
        let names: Vec<_> = self.apps.keys().cloned().collect();
        for name in names {
            let app = self.apps.get_mut(&name);
            let actions = app.map(|app| app.start_in(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
    }

    fn swapped(
        &mut self,
        worker: WorkerId,
        name: &str,
        generation: u64,
        took: Duration,
        in_flight: u64,
    ) {
        if self.fleet.is_booting(worker, name, generation) {
            if let Some(app) = self.apps.get_mut(name) {
                app.replaced_in(worker, false);
            }
            if self.fleet.finish_boot(worker, name) {
                self.accepts(worker);
            }
            return;
        }
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let actions = app.swapped(worker, generation, took, in_flight);
        let serves = app.serving.as_ref();
        if serves.is_some_and(|serving| serving.generation == generation) && !self.watches {
            let app = name.to_owned();
            self.tasks.spawn(async move {
                time::sleep(PROVED_AFTER).await;
                TaskOutcome::Proved { app, generation }
            });
        }
        self.apply(name, actions);
        // The swap may have freed a name or a mount that another app waits for.
        self.libraries.mark_changed();
        self.commit_what_is_ready();
    }

    /// Schedules another try of a load that failed at a worker's boot. The generation serves in other
    /// workers, so the cause is probably temporary.
    fn retry_later(&mut self, worker: WorkerId, app: &str, generation: u64) {
        let app = app.to_owned();
        self.tasks.spawn(async move {
            time::sleep(BOOT_RETRY).await;
            TaskOutcome::Retry {
                worker,
                app,
                generation,
            }
        });
    }

    /// Repeats a load that failed at a worker's boot, if that generation still serves.
    pub(super) fn retry(&mut self, worker: WorkerId, app: &str, generation: u64) {
        let serving = self.apps.get(app).and_then(|app| app.serving.clone());
        if let Some(staged) = serving.filter(|serving| serving.generation == generation) {
            let state = self.recycling.state(worker, app);
            self.fleet.retry_boot(worker, staged, state);
        }
    }

    /// Records how many more libraries a worker can load, and recycles the worker before none are left, or
    /// before the copies of the libraries fill the disk.
    fn loads_left(&mut self, worker: WorkerId, left: usize) {
        self.fleet.set_loads_left(worker, left);
        if left < self.apps.len() + LOADS_KEPT {
            self.recycle(worker, RecycleReason::Loads);
            self.recycle_next();
        }
        self.measure_copies(worker);
    }

    fn failed(
        &mut self,
        worker: WorkerId,
        name: &str,
        generation: u64,
        step: String,
        error: String,
    ) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let hash = app
            .loading()
            .filter(|loading| loading.generation == generation)
            .map(|loading| loading.request.spec.hash);
        let failure = LoadFailure {
            file: app.library.display().to_string(),
            hash: hash.map(|hash| hash.short()),
            step,
            error,
            at: SystemTime::now(),
        };
        if app.is_replacement(generation) {
            return self.replacement_failed(worker, name, generation, failure);
        }
        if self.fleet.is_booting(worker, name, generation) {
            app.report_failure(failure);
            self.retry_later(worker, name, generation);
            if self.fleet.finish_boot(worker, name) {
                self.accepts(worker);
            }
            return;
        }
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
        self.libraries.mark_changed();
        self.commit_what_is_ready();
    }
}

/// The delay before a load that failed at a worker's boot is repeated.
const BOOT_RETRY: Duration = Duration::from_secs(5);

/// How many loads are reserved for reloads that come while the worker is being replaced.
const LOADS_KEPT: usize = 24;

/// How long a generation must serve, without a probation, to count as good.
const PROVED_AFTER: Duration = Duration::from_secs(60);
