//! An app that is reloaded by process: fresh workers with its new generation take the place of all that
//! run.

use super::{Supervisor, app::WorkerId, outcome::LoadFailure, recycle::RecycleReason};
use crate::orders::Order;

impl Supervisor {
    /// Replaces all workers by fresh ones that start what is on its way.
    pub(super) fn replace_workers(&mut self) {
        for worker in self.fleet.ready_workers() {
            self.recycle(worker, RecycleReason::App);
        }
        self.recycle_next();
    }

    /// A fresh worker could not start the generation that is to replace what serves. What serves,
    /// serves on: the fresh worker ends, or has it instead when the old one has given its state.
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

    /// The apps that are reloaded by process and that all workers have serve from now on.
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
