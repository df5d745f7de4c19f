//! The supervisor's part of a reload by process: fresh workers with the new generation of an app replace all running
//! workers.

use super::{Supervisor, app::WorkerId, outcome::LoadFailure, recycle::RecycleReason};
use crate::orders::Order;

impl Supervisor {
    /// Queues all workers for recycling. The fresh workers start with the pending generation.
    pub(super) fn replace_workers(&mut self) {
        for worker in self.fleet.ready_workers() {
            self.recycle(worker, RecycleReason::App);
        }
        self.recycle_next();
    }

    /// Handles a fresh worker that could not start the new generation: the load fails, and the serving generation
    /// continues to serve.
    ///
    /// If the old worker has already sent its state, the old worker cannot serve the app any more. So the fresh worker
    /// starts the old generation with that state. Otherwise the fresh worker is killed. Workers that already have the
    /// new generation are recycled, and the workers that replace them start with the serving generation.
    pub(super) fn replacement_failed(
        &mut self,
        worker: WorkerId,
        name: &str,
        generation: u64,
        failure: LoadFailure,
    ) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        // Read before `load_failed`, which drops the rollout.
        let serving = app.serving.clone();
        let loaded_workers = app.loading().and_then(|loading| loading.rollout());
        let loaded_workers = loaded_workers
            .map(|rollout| rollout.loaded.clone())
            .unwrap_or_default();
        let actions = app.load_failed(generation, failure);
        // The other workers keep the serving generation, so they need not be replaced any more.
        self.recycling
            .queue
            .retain(|&(_, reason)| reason != RecycleReason::App);
        let state = self.recycling.state(worker, name);
        match (state, serving) {
            (Some(state), Some(staged)) => self.fleet.send(
                worker,
                Order::Load {
                    staged,
                    serve: true,
                    state: Some(state),
                },
            ),
            // The exit of the fresh worker ends the replacement, and the old worker continues to serve.
            _ => self.fleet.kill(worker),
        }
        for other in loaded_workers {
            self.recycle(other, RecycleReason::App);
        }
        self.apply(name, actions);
    }

    /// Completes each reload by process whose new generation serves in all workers. Otherwise recycles the workers that
    /// still have the old generation, for example a worker that started during the reload. Does nothing while a
    /// replacement is under way.
    pub(super) fn finish_replacements(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        let workers = self.fleet.ready_workers();
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let Some(app) = self.apps.get_mut(&name) else {
                continue;
            };
            match app.workers_to_replace(&workers) {
                Some(old_workers) if old_workers.is_empty() => {
                    let actions = app.complete_replacement();
                    self.apply(&name, actions);
                    // The new generation may have other mounts, so a new plan is needed.
                    self.libraries.mark_changed();
                }
                Some(old_workers) => {
                    for worker in old_workers {
                        self.recycle(worker, RecycleReason::App);
                    }
                }
                None => {}
            }
        }
        self.recycle_next();
    }
}
