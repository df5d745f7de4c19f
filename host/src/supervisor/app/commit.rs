//! The commit: a generation that has started in all workers begins to serve.
//!
//! Every worker holds the started generation before any worker is told to commit. So a load that fails
//! in one worker changes nothing for clients. The commit itself cannot fail: a worker that does not
//! answer it has crashed, and its replacement starts with the new generation.

use std::{mem, sync::Arc, time::Duration};

use tracing::info;

use super::{
    App, AppAction, AppState, AsideReason, LoadPhase, LoadReason, PendingLoad, Probation, Rollout,
    WorkerId, answer,
};
use crate::{
    orders::{Commit, StagedGeneration, StepTimings},
    supervisor::outcome::ReloadReport,
};

impl App {
    /// Starting → Committing. Returns the commit for the workers, or `None` when the generation has not
    /// started in all of them. The supervisor sends the commits of several apps as one order, so that apps
    /// can exchange mounts.
    pub fn commit(&mut self) -> Option<Commit> {
        let watches = self.watches && self.serving.is_some();
        if !self.is_ready() {
            return None;
        }
        let AppState::Loading(loading) = &mut self.state else {
            return None;
        };
        let LoadPhase::Starting(rollout) = mem::replace(&mut loading.phase, LoadPhase::Preparing)
        else {
            return None;
        };
        self.ended_early.clear();
        let commit = Commit {
            app: rollout.staged.app.clone(),
            generation: loading.generation,
            watch: watches && loading.request.reason != LoadReason::Rollback,
        };
        loading.phase = LoadPhase::Committing {
            waiting: rollout.loaded.clone(),
            rollout,
            in_flight: 0,
            swap: Duration::ZERO,
        };
        Some(commit)
    }

    /// Handles [`Notice::Swapped`](crate::orders::Notice::Swapped). When all workers have swapped, the
    /// generation becomes the serving one.
    pub fn swapped(
        &mut self,
        worker: WorkerId,
        generation: u64,
        took: Duration,
        before: u64,
    ) -> Vec<AppAction> {
        let Some(loading) = self.loading_mut(generation) else {
            return Vec::new();
        };
        let LoadPhase::Committing {
            waiting,
            in_flight,
            swap,
            ..
        } = &mut loading.phase
        else {
            return Vec::new();
        };
        waiting.remove(&worker);
        *in_flight += before;
        *swap = took.max(*swap);
        self.finish_if_all_swapped()
    }

    pub(super) fn finish_if_all_swapped(&mut self) -> Vec<AppAction> {
        match mem::replace(&mut self.state, AppState::Resting) {
            AppState::Loading(loading) if matches!(&loading.phase, LoadPhase::Committing { waiting, .. } if waiting.is_empty()) => {
                self.finish(*loading)
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Committing → Probation or Resting: records the new generation as serving, and lets the old one drain.
    ///
    /// The old generation is kept running instead if a probation begins and the old generation still has
    /// its state. A request for another load that came meanwhile begins last.
    pub(super) fn finish(&mut self, loading: PendingLoad) -> Vec<AppAction> {
        let PendingLoad {
            request,
            phase,
            next,
            probation,
            ..
        } = loading;
        let LoadPhase::Committing {
            rollout,
            in_flight,
            swap,
            ..
        } = phase
        else {
            return Vec::new();
        };
        self.hands_over = rollout.hands_over;
        let Rollout {
            staged,
            mut timings,
            loaded: workers,
            handed_over,
            ..
        } = rollout;
        timings.swap = swap;
        let before = self.serving.replace(staged.clone());
        self.mounts.clone_from(&staged.spec.mounts);
        self.timings = Some(timings);
        self.last_error = None;
        self.failed.clear();
        self.remember_previous(before.as_ref(), &staged, request.reason);
        self.log_loaded(&staged, before.as_ref(), request.reason, timings);

        let proof = Box::new(ReloadReport {
            name: self.name.clone(),
            old_generation: before.as_ref().map(|before| before.generation),
            new_generation: staged.generation,
            version: staged.version.clone(),
            hash: staged.spec.hash.to_string(),
            timings,
            in_flight_at_swap: in_flight,
            drained: None,
            failed: 0,
        });
        let reply = request.reply_id.map(|reply_id| (reply_id, proof));
        let mut actions = Vec::new();
        // A generation that was kept for the previous probation is not needed any more.
        if let Some(kept) = probation.and_then(|probation| probation.kept) {
            actions.extend(self.drain(kept.generation, workers.clone(), None));
        }
        // After a reload by process no worker has the old generation, so a probation could not go back.
        let is_alone = workers.is_empty();
        let watches = self.watches && request.reason != LoadReason::Rollback && !is_alone;
        match before {
            Some(before) if watches => {
                let is_kept = !handed_over;
                let probation = Probation::new(before.clone(), is_kept, &workers);
                self.state = AppState::Probation(Box::new(probation));
                if is_kept {
                    actions.extend(answer(reply));
                } else {
                    actions.extend(self.drain(before.generation, workers, reply));
                }
            }
            Some(before) => actions.extend(self.drain(before.generation, workers, reply)),
            None => actions.extend(answer(reply)),
        }
        if let Some(next) = next {
            actions.extend(self.request_load(next));
        }
        actions
    }

    fn remember_previous(
        &mut self,
        before: Option<&StagedGeneration>,
        now: &StagedGeneration,
        reason: LoadReason,
    ) {
        let hash = now.spec.hash;
        self.aside
            .retain(|&aside, reason| aside != hash && matches!(reason, AsideReason::Crashed(_)));
        let Some(before) = before else { return };
        if reason == LoadReason::Rollback {
            let aside = AsideReason::RolledBack(Arc::clone(&before.spec));
            self.aside.insert(before.spec.hash, aside);
        }
        if before.spec.hash != now.spec.hash {
            self.previous = Some(before.clone());
        }
    }

    fn log_loaded(
        &self,
        now: &StagedGeneration,
        before: Option<&StagedGeneration>,
        reason: LoadReason,
        timings: StepTimings,
    ) {
        info!(
            plugin = self.name,
            version = now.version,
            generation = now.generation,
            replaces = before.map(|before| before.generation),
            hash = now.spec.hash.short(),
            mount = self.mounts.join(","),
            max_level = now.max_level,
            file = %self.library.display(),
            by_process = self.by_process,
            took = ?timings.total(),
            "{}", if reason == LoadReason::Rollback { "Rolled back" } else { "Loaded" }
        );
    }
}
