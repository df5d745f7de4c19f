//! What workers tell, and what becomes of it.

use std::time::{Duration, SystemTime};

use tokio::time;

use super::{Done, Supervisor, app::WorkerId, report::Failure};
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
                self.fleet.note_step(worker, &app, generation, step);
                if let Some(app) = self.apps.get_mut(&app) {
                    app.at_step(generation, step);
                }
            }
            Notice::Loaded {
                app,
                generation,
                took,
                handed_over,
            } => {
                self.fleet.load_over(worker, &app, generation);
                let workers = self.fleet.taking_part();
                if self.fleet.boots(worker, &app, generation) {
                    return;
                }
                let actions = match self.apps.get_mut(&app) {
                    Some(app) => app.loaded(worker, generation, took, handed_over, &workers),
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
                self.fleet.load_over(worker, &app, generation);
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
                    Some(app) => app.judged(worker, generation, failed),
                    None => Vec::new(),
                };
                self.apply(&app, actions);
                self.libraries.touch();
            }
            Notice::Retired {
                app,
                generation,
                drained,
                cut,
            } => {
                let known = self
                    .apps
                    .get_mut(&app)
                    .or_else(|| self.removed.get_mut(&app));
                let actions = match known {
                    Some(app) => app.retired(worker, generation, drained, cut),
                    None => Vec::new(),
                };
                self.apply(&app, actions);
            }
            Notice::InForce {
                number,
                unconfirmed,
            } => self.in_force(worker, number, unconfirmed),
            Notice::Report { number, report } => self.reported(worker, number, *report),
            Notice::LoadsLeft(left) => self.fleet.note_loads_left(worker, left),
            // A worker process is gone when it has ended.
            Notice::Stopped if self.workers.is_some() => {}
            Notice::Stopped => {
                self.fleet.remove(worker);
            }
        }
    }

    /// A worker takes orders: it gets all apps as they are.
    fn ready(&mut self, worker: WorkerId) {
        let mut starts = Vec::new();
        if let Some(workers) = &self.workers {
            // The level may have changed since the worker was started.
            let directives = workers.filter.directives().to_string();
            self.fleet.send(
                worker,
                Order::SetLevel {
                    number: 0,
                    directives,
                },
            );
        }
        for app in self.apps.values() {
            let hold = Order::Hold {
                app: app.name.clone(),
                mounts: app.mounts.clone(),
            };
            self.fleet.send(worker, hold);
            if let Some(serving) = &app.serving {
                starts.push(serving.clone());
            }
        }
        self.fleet.boot(worker, starts);
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
        if self.fleet.booted(worker, name, generation) {
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
                Done::Proved { app, generation }
            });
        }
        self.apply(name, actions);
        // A name or a mount may have become free.
        self.libraries.touch();
        self.commit_what_is_ready();
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
            .map(|loading| loading.wanted.spec.hash);
        let failure = Failure {
            file: app.library.display().to_string(),
            hash: hash.map(|hash| hash.short()),
            step,
            error,
            at: SystemTime::now(),
        };
        if self.fleet.boot_failed(worker, name, generation) {
            app.say_failed(failure);
            return;
        }
        let actions = app.load_failed(generation, failure);
        self.apply(name, actions);
        self.libraries.touch();
        self.commit_what_is_ready();
    }
}

/// After how long without a probation a generation counts as good.
const PROVED_AFTER: Duration = Duration::from_secs(60);
