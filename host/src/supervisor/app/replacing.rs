//! Reload by process: the new generation starts in fresh workers that replace the running ones.
//!
//! Some libraries must not be loaded twice in one process (SQLite, for example). For these apps old and
//! new generation never share a process. Workers are recycled one at a time; the reload is done when every
//! worker has the new generation.

use std::{collections::BTreeSet, mem, time::Duration};

use super::{App, AppAction, AppState, LoadPhase, PendingLoad, Rollout, WorkerId};
use crate::orders::StagedGeneration;

impl App {
    /// Returns the generation that fresh workers start in place of the serving one.
    #[must_use]
    pub fn replacement(&self) -> Option<&StagedGeneration> {
        match self.loading().map(|loading| &loading.phase) {
            Some(LoadPhase::Replacing(rollout)) => Some(&rollout.staged),
            _ => None,
        }
    }

    /// Returns whether fresh workers start this generation.
    #[must_use]
    pub fn is_replacement(&self, generation: u64) -> bool {
        let replacement = self.replacement();
        replacement.is_some_and(|staged| staged.generation == generation)
    }

    /// Returns the generation that a new worker starts with: the serving one, or the one that is being
    /// committed. A worker that replaces another one gets the replacement generation.
    #[must_use]
    pub fn for_new_worker(&self, replaces: bool) -> Option<&StagedGeneration> {
        match self.loading().map(|loading| &loading.phase) {
            Some(LoadPhase::Committing { rollout, .. }) => Some(&rollout.staged),
            Some(LoadPhase::Replacing(rollout)) if replaces => Some(&rollout.staged),
            _ => self.serving.as_ref(),
        }
    }
    /// Records that a fresh worker starts the new generation.
    pub fn start_replacing_in(&mut self, worker: WorkerId) {
        if let AppState::Loading(loading) = &mut self.state
            && let LoadPhase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.insert(worker);
        }
    }

    /// Records that the new generation serves in a fresh worker.
    pub fn replaced_in(&mut self, worker: WorkerId, hands_over: bool) {
        if let AppState::Loading(loading) = &mut self.state
            && let LoadPhase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.remove(&worker);
            rollout.loaded.insert(worker);
            rollout.hands_over = hands_over;
        }
    }
    /// Returns the workers that still have the old generation. Returns `None` when no reload by process is
    /// under way, or while a fresh worker still starts the new generation.
    #[must_use]
    pub fn not_replaced(&self, workers: &[WorkerId]) -> Option<BTreeSet<WorkerId>> {
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

    /// Completes the reload: all workers have the new generation.
    pub fn replaced(&mut self) -> Vec<AppAction> {
        let AppState::Loading(mut loading) = mem::replace(&mut self.state, AppState::Resting)
        else {
            return Vec::new();
        };
        match mem::replace(&mut loading.phase, LoadPhase::Preparing) {
            LoadPhase::Replacing(rollout) => {
                loading.phase = LoadPhase::Committing {
                    // The old generation ended together with its workers, so no drain is waited for.
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
            phase => {
                self.state = AppState::Loading(Box::new(PendingLoad { phase, ..*loading }));
                Vec::new()
            }
        }
    }
}
