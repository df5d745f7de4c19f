//! Handles the notices of workers.
//!
//! A notice about a load belongs to the boot of a worker, to a reload by process, or to the normal load of an app. In a
//! reload by process, the new generation starts at the boot of a fresh worker.

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
    /// Handles a notice of a worker.
    pub(super) fn handle_notice(&mut self, worker: WorkerId, notice: Notice) {
        match notice {
            Notice::Ready => self.ready(worker),
            Notice::Step {
                app,
                generation,
                step,
            } => {
                // The fleet needs the step if the worker dies, and the app for the report to operators.
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
                let report = LoadReport {
                    timings,
                    handed_over,
                    hands_over,
                };
                self.loaded(worker, &app, generation, report);
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
                let app_state = self.apps.get_mut(&app);
                let actions = app_state.map(|app| app.probation_ended(worker, generation, failed));
                self.apply(&app, actions.unwrap_or_default());
                // A rollback may change the mounts of the app, so a new plan is needed.
                self.libraries.mark_changed();
            }
            Notice::Retired {
                app,
                generation,
                drained,
                aborted,
            } => {
                // The last generation of an app that was removed may still drain.
                let (apps, removed) = (&mut self.apps, &mut self.removed);
                let app_state = apps.get_mut(&app).or_else(|| removed.get_mut(&app));
                let actions =
                    app_state.map(|app| app.retired(worker, generation, drained, aborted));
                self.apply(&app, actions.unwrap_or_default());
            }
            Notice::InForce {
                number,
                unconfirmed,
            } => self.in_force(worker, number, unconfirmed),
            Notice::Report { number, report } => self.reported(worker, number, *report),
            Notice::LoadsLeft(left) => self.loads_left(worker, left),
            Notice::State { app, state } => self.state_received(worker, &app, state),
            // Ignored for a worker process: the supervisor removes the worker when the process has exited.
            Notice::Stopped if self.spawner.is_some() => {}
            Notice::Stopped => {
                self.fleet.remove(worker);
            }
        }
    }

    /// Handles a generation that has started in a worker.
    ///
    /// At the boot of a worker, the generation also begins to serve, and [`Notice::Swapped`] follows.
    fn loaded(&mut self, worker: WorkerId, name: &str, generation: u64, report: LoadReport) {
        self.fleet.load_ended(worker, name, generation);
        self.recycling.forget_state(worker, name);
        if let Some(app) = self.apps.get_mut(name)
            && app.is_replacement(generation)
        {
            app.record_replacement_handover(report.hands_over);
        }
        // The boot continues when the generation serves: see `swapped`.
        if self.fleet.is_booting(worker, name, generation) {
            return;
        }
        if let Some(app) = self.apps.get_mut(name)
            && app.is_replacement(generation)
        {
            // The app is not part of the boot, so the generation has started with the state of the replaced worker.
            app.record_replacement(worker);
            return self.finish_replacements();
        }
        let workers = self.fleet.ready_workers();
        let app = self.apps.get_mut(name);
        let actions = app.map(|app| app.loaded(worker, generation, report, &workers));
        self.apply(name, actions.unwrap_or_default());
    }

    /// Handles a worker that is ready for orders: sends the log level, all mounts, and the generations that serve.
    ///
    /// The worker answers requests to a mount with 503 until the app has started ([`Order::Hold`]). If the worker
    /// replaces another worker, an app that hands its state over starts only when the old worker has sent the state.
    /// Requests to that app wait ([`Order::Await`]). The old worker sends the state after the last requests of the app
    /// have ended there. The worker also takes part in the loads under way.
    fn ready(&mut self, worker: WorkerId) {
        let mut starts = Vec::new();
        if let Some(spawner) = &self.spawner {
            // The level may have changed after the worker's setup was created. No answer is expected, so the number is
            // 0, which no query has.
            let directives = spawner.filter.directives().to_string();
            self.fleet.send(
                worker,
                Order::SetLevel {
                    number: 0,
                    directives,
                },
            );
        }
        let mut waiting = BTreeMap::new();
        let replaces = self.replaced_by(worker).is_some();
        for app in self.apps.values_mut() {
            let staged = app.generation_for_new_worker(replaces).cloned();
            if replaces {
                app.record_replacement_start(worker);
            }
            // An app with state starts later, when the replaced worker has sent the state.
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
            current.waiting_for_state = waiting;
        }
        if self.fleet.boot(worker, starts) {
            self.stop_worker_replaced_by(worker);
        }
        // The worker takes part in the loads under way.
        let names: Vec<_> = self.apps.keys().cloned().collect();
        for name in names {
            let app = self.apps.get_mut(&name);
            let actions = app.map(|app| app.start_in(worker)).unwrap_or_default();
            self.apply(&name, actions);
        }
    }

    /// Handles a generation that serves in a worker: completes a part of the boot or of the commit.
    fn swapped(
        &mut self,
        worker: WorkerId,
        name: &str,
        generation: u64,
        took: Duration,
        in_flight: u64,
    ) {
        if self.fleet.is_booting(worker, name, generation) {
            // During a reload by process, a worker that replaces a crashed one starts the old generation.
            if let Some(app) = self.apps.get_mut(name)
                && app.is_replacement(generation)
            {
                app.record_replacement(worker);
            }
            if self.fleet.finish_boot(worker, name) {
                self.stop_worker_replaced_by(worker);
            }
            return;
        }
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let actions = app.swapped(worker, generation, took, in_flight);
        // The generation serves only after the last worker has swapped, so the timer starts once.
        let serves = app.serving.as_ref();
        if serves.is_some_and(|serving| serving.generation == generation) && !self.uses_probation {
            let app = name.to_owned();
            self.tasks.spawn(async move {
                time::sleep(GOOD_AFTER).await;
                TaskOutcome::ServedLongEnough { app, generation }
            });
        }
        self.apply(name, actions);
        // The swap may have freed a mount that another app waits for.
        self.libraries.mark_changed();
        self.commit_ready_apps();
    }

    /// Schedules another try of a load that failed at a worker's boot. The cause is probably temporary, because the
    /// generation serves in other workers.
    fn retry_boot_later(&mut self, worker: WorkerId, app: &str, generation: u64) {
        let app = app.to_owned();
        self.tasks.spawn(async move {
            time::sleep(BOOT_RETRY_DELAY).await;
            TaskOutcome::RetryBoot {
                worker,
                app,
                generation,
            }
        });
    }

    /// Repeats a load that failed at a worker's boot, if that generation still serves.
    pub(super) fn retry_boot(&mut self, worker: WorkerId, app: &str, generation: u64) {
        let serving = self.apps.get(app).and_then(|app| app.serving.clone());
        if let Some(staged) = serving.filter(|serving| serving.generation == generation) {
            // The old worker cannot send the state again, so a copy was stored.
            let state = self.recycling.state(worker, app);
            self.fleet.retry_boot(worker, staged, state);
        }
    }

    /// Records how many more libraries a worker can load. Recycles the worker if that number is low. Also measures the
    /// private copies of the worker, because each load adds one.
    fn loads_left(&mut self, worker: WorkerId, loads_left: usize) {
        self.fleet.set_loads_left(worker, loads_left);
        if loads_left < self.apps.len() + RESERVED_LOADS {
            self.recycle(worker, RecycleReason::Loads);
            self.recycle_next();
        }
        self.measure_copies(worker);
    }

    /// Handles a generation that could not be started in a worker.
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
        // Checked before the boot: a failure in a reload by process ends the load, instead of being tried again.
        if app.is_replacement(generation) {
            return self.replacement_failed(worker, name, generation, failure);
        }
        if self.fleet.is_booting(worker, name, generation) {
            // The generation serves in other workers, so this worker tries again, and serves the other apps meanwhile.
            app.report_failure(failure);
            self.retry_boot_later(worker, name, generation);
            if self.fleet.finish_boot(worker, name) {
                self.stop_worker_replaced_by(worker);
            }
            return;
        }
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
        self.libraries.mark_changed();
        self.commit_ready_apps();
    }
}

/// The delay before a load that failed at a worker's boot is repeated.
const BOOT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// How many loads are reserved for reloads that are requested while the worker is being replaced.
const RESERVED_LOADS: usize = 24;

/// How long a generation must serve to count as good, if `--auto-rollback` is off.
const GOOD_AFTER: Duration = Duration::from_secs(60);
