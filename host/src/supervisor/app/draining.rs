//! Generations that were replaced, until their last requests are over in every worker.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, App, AskId, Phase, WorkerId, answer};
use crate::supervisor::outcome::Proof;

/// A generation that was replaced, and who waits for its end.
#[derive(Debug, Default)]
pub struct Draining {
    /// The workers in which it has not ended.
    pub workers: BTreeSet<WorkerId>,
    /// The longest time that its last requests took in a worker.
    drained: Duration,
    /// How many requests were cut off, in all workers.
    cut: u64,
    /// Who asked for the generation that replaced it, and what they will be told.
    asked: Option<(AskId, Box<Proof>)>,
}

impl Draining {
    /// The generation has ended in all workers: who asked is told what that took.
    fn end(self) -> Option<Action> {
        let (ask, mut proof) = self.asked?;
        proof.drained = Some(self.drained);
        proof.failed = self.cut;
        Some(Action::Answer(ask, Ok(proof)))
    }
}

impl App {
    /// A generation that was replaced has ended in a worker.
    pub fn retired(
        &mut self,
        worker: WorkerId,
        generation: u64,
        drained: Duration,
        cut: u64,
    ) -> Vec<Action> {
        if let Some(draining) = self.draining.get_mut(&generation) {
            draining.drained = draining.drained.max(drained);
            draining.cut += cut;
            return self.left(worker, generation);
        }
        if matches!(
            self.loading().map(|loading| &loading.phase),
            Some(Phase::Committing { .. })
        ) {
            let early = self.early.entry(generation).or_default();
            early.workers.insert(worker);
            early.drained = early.drained.max(drained);
            early.cut += cut;
        }
        Vec::new()
    }

    /// A generation is in this worker no more.
    pub(super) fn left(&mut self, worker: WorkerId, generation: u64) -> Vec<Action> {
        let Some(draining) = self.draining.get_mut(&generation) else {
            return Vec::new();
        };
        draining.workers.remove(&worker);
        if !draining.workers.is_empty() {
            return Vec::new();
        }
        let ended = self.draining.remove(&generation);
        ended.and_then(Draining::end).into_iter().collect()
    }

    /// A generation is to end in these workers, which were told so.
    pub(super) fn drain(
        &mut self,
        generation: u64,
        workers: BTreeSet<WorkerId>,
        asked: Option<(AskId, Box<Proof>)>,
    ) -> Vec<Action> {
        if workers.is_empty() {
            return answer(asked).into_iter().collect();
        }
        // A worker may have been done before the last one has swapped.
        let early = self.early.remove(&generation).unwrap_or_default();
        let draining = Draining {
            workers: &workers - &early.workers,
            asked,
            ..early
        };
        if draining.workers.is_empty() {
            return draining.end().into_iter().collect();
        }
        self.draining.insert(generation, draining);
        Vec::new()
    }
}
