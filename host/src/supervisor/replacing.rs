//! Reload by process: fresh workers with the new generation of an app replace all running workers.

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

    /// Handles a fresh worker that could not start the new generation: the load fails, and the serving
    /// generation goes on.
    ///
    /// If the old worker has already given its state, it cannot serve the app any more. So the fresh worker
    /// starts the old generation with that state. Otherwise the fresh worker is killed. Workers that already
    /// have the new generation are recycled back to the serving one.
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
        let serving = app.serving.clone();
        let have_it = app.loading().and_then(|loading| loading.rollout());
        let have_it = have_it
            .map(|rollout| rollout.loaded.clone())
            .unwrap_or_default();
        let actions = app.load_failed(generation, failure);
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
            _ => self.fleet.kill(worker),
        }
        for other in have_it {
            self.recycle(other, RecycleReason::App);
        }
        self.apply(name, actions);
    }

    /// Completes reloads by process whose generation serves in all workers, and recycles workers that still
    /// have the old generation, such as one that started meanwhile.
    pub(super) fn finish_replacements(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        let workers = self.fleet.ready_workers();
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let Some(app) = self.apps.get_mut(&name) else {
                continue;
            };
            match app.not_replaced(&workers) {
                Some(left) if left.is_empty() => {
                    let actions = app.replaced();
                    self.apply(&name, actions);
                    self.libraries.mark_changed();
                }
                Some(left) => {
                    for worker in left {
                        self.recycle(worker, RecycleReason::App);
                    }
                }
                None => {}
            }
        }
        self.recycle_next();
    }
}
