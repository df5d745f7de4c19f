//! Reload by process: the new generation starts in fresh workers that replace the running ones.
//!
//! Some libraries, for example SQLite, must not be loaded twice in one process. For an app with such a library, the
//! old and the new generation never share a process. Workers are recycled one at a time. The reload is complete when
//! every worker has the new generation.

use std::{collections::BTreeSet, mem, time::Duration};

use super::{App, AppAction, AppState, LoadPhase, PendingLoad, Rollout, WorkerId};
use crate::orders::StagedGeneration;

impl App {
    /// Returns the generation that fresh workers start instead of the serving one, during a reload by process.
    #[must_use]
    pub fn replacement(&self) -> Option<&StagedGeneration> {
        match self.loading().map(|loading| &loading.phase) {
            Some(LoadPhase::Replacing(rollout)) => Some(&rollout.staged),
            _ => None,
        }
    }

    /// Returns whether `generation` is the generation that fresh workers start during a reload by process.
    #[must_use]
    pub fn is_replacement(&self, generation: u64) -> bool {
        let replacement = self.replacement();
        replacement.is_some_and(|staged| staged.generation == generation)
    }

    /// Returns the generation that a new worker starts with: the serving one, or the one that is being committed.
    /// During a reload by process, a worker that replaces another one (`replaces`) starts with the new generation.
    #[must_use]
    pub fn generation_for_new_worker(&self, replaces: bool) -> Option<&StagedGeneration> {
        match self.loading().map(|loading| &loading.phase) {
            Some(LoadPhase::Committing { rollout, .. }) => Some(&rollout.staged),
            Some(LoadPhase::Replacing(rollout)) if replaces => Some(&rollout.staged),
            _ => self.serving.as_ref(),
        }
    }

    /// Records that a fresh worker starts the new generation.
    pub fn record_replacement_start(&mut self, worker: WorkerId) {
        if let AppState::Loading(loading) = &mut self.state
            && let LoadPhase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.insert(worker);
        }
    }

    /// Records whether the new generation can hand its own state over later.
    pub fn record_replacement_handover(&mut self, hands_over: bool) {
        if let AppState::Loading(loading) = &mut self.state
            && let LoadPhase::Replacing(rollout) = &mut loading.phase
        {
            rollout.hands_over = hands_over;
        }
    }

    /// Records that the new generation serves in a fresh worker.
    pub fn record_replacement(&mut self, worker: WorkerId) {
        if let AppState::Loading(loading) = &mut self.state
            && let LoadPhase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.remove(&worker);
            rollout.loaded.insert(worker);
        }
    }

    /// Returns the workers that still have the old generation. Returns `None` if no reload by process is under way, or
    /// while a fresh worker still starts the new generation.
    #[must_use]
    pub fn workers_to_replace(&self, workers: &[WorkerId]) -> Option<BTreeSet<WorkerId>> {
        match self.loading().map(|loading| &loading.phase) {
            Some(LoadPhase::Replacing(rollout)) if rollout.starting.is_empty() => {
                let all = workers.iter().copied();
                Some(
                    all.filter(|worker| !rollout.loaded.contains(worker))
                        .collect(),
                )
            }
            _ => None,
        }
    }

    /// Completes the reload by process, after all workers have the new generation.
    pub fn complete_replacement(&mut self) -> Vec<AppAction> {
        let AppState::Loading(mut loading) = mem::replace(&mut self.state, AppState::Idle) else {
            return Vec::new();
        };
        match mem::replace(&mut loading.phase, LoadPhase::Preparing) {
            LoadPhase::Replacing(rollout) => {
                // A reload by process ends like a commit in which all workers have swapped.
                loading.phase = LoadPhase::Committing {
                    // Empty, because the old generation ended together with its workers: no worker has to drain it.
                    rollout: Rollout {
                        loaded: BTreeSet::new(),
                        ..rollout
                    },
                    waiting: BTreeSet::new(),
                    in_flight: 0,
                    swap: Duration::ZERO,
                };
                self.finish(*loading)
            }
            // No reload by process is under way, so the load continues unchanged.
            phase => {
                self.state = AppState::Loading(Box::new(PendingLoad { phase, ..*loading }));
                Vec::new()
            }
        }
    }
}
