//! A reload by process: the new generation starts in fresh workers, which take the place of those that
//! run, so that old and new are never in one process.

use std::{collections::BTreeSet, mem, time::Duration};

use super::{Action, App, Loading, Phase, Rollout, State, WorkerId};
use crate::orders::Started;

impl App {
    /// The generation that fresh workers start in place of the one that serves.
    #[must_use]
    pub fn replacement(&self) -> Option<&Started> {
        match self.loading().map(|loading| &loading.phase) {
            Some(Phase::Replacing(rollout)) => Some(&rollout.started),
            _ => None,
        }
    }

    /// Whether a generation is the one that fresh workers start.
    #[must_use]
    pub fn is_replacement(&self, generation: u64) -> bool {
        let replacement = self.replacement();
        replacement.is_some_and(|started| started.generation == generation)
    }

    /// What a worker that starts now is to have: what serves, or is about to in all other workers. One
    /// that takes the place of another has the generation that is to replace it.
    #[must_use]
    pub fn for_new_worker(&self, replaces: bool) -> Option<&Started> {
        match self.loading().map(|loading| &loading.phase) {
            Some(Phase::Committing { rollout, .. }) => Some(&rollout.started),
            Some(Phase::Replacing(rollout)) if replaces => Some(&rollout.started),
            _ => self.serving.as_ref(),
        }
    }
    /// A fresh worker, which takes the place of another, starts the new generation.
    pub fn replaces_in(&mut self, worker: WorkerId) {
        if let State::Loading(loading) = &mut self.state
            && let Phase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.insert(worker);
        }
    }

    /// The new generation serves in a fresh worker.
    pub fn replaced_in(&mut self, worker: WorkerId, hands_over: bool) {
        if let State::Loading(loading) = &mut self.state
            && let Phase::Replacing(rollout) = &mut loading.phase
        {
            rollout.starting.remove(&worker);
            rollout.loaded.insert(worker);
            rollout.hands_over = hands_over;
        }
    }
    /// The workers that still have the generation before. None when no generation is being replaced,
    /// or a fresh worker still starts the new one.
    #[must_use]
    pub fn not_replaced(&self, workers: &[WorkerId]) -> Option<BTreeSet<WorkerId>> {
        match self.loading().map(|loading| &loading.phase) {
            Some(Phase::Replacing(rollout)) if rollout.starting.is_empty() => {
                let all = workers.iter().copied();
                Some(
                    all.filter(|worker| !rollout.loaded.contains(worker))
                        .collect(),
                )
            }
            _ => None,
        }
    }

    /// All workers have the new generation: it serves from now on.
    pub fn replaced(&mut self) -> Vec<Action> {
        let State::Loading(mut loading) = mem::replace(&mut self.state, State::Resting) else {
            return Vec::new();
        };
        match mem::replace(&mut loading.phase, Phase::Preparing) {
            Phase::Replacing(rollout) => {
                loading.phase = Phase::Committing {
                    // The generation before has ended with its workers.
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
                self.state = State::Loading(Box::new(Loading { phase, ..*loading }));
                Vec::new()
            }
        }
    }
}
