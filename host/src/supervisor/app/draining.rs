//! Generations that were replaced, until their last requests have ended in every worker.

use std::{collections::BTreeSet, time::Duration};

use super::{App, AppAction, LoadPhase, ReplyId, WorkerId, answer};
use crate::supervisor::outcome::ReloadReport;

/// A replaced generation that still has requests in some worker.
#[derive(Debug, Default)]
pub struct DrainingGeneration {
    /// The workers in which the generation still drains.
    pub workers: BTreeSet<WorkerId>,
    /// The longest drain among the workers in which the generation has ended.
    drained: Duration,
    /// The number of requests that were aborted, summed over the workers.
    aborted: u64,
    /// The operator who requested the new generation, and the report for that operator. The report is sent after the
    /// old generation has ended, because the report includes the duration of the drain.
    reply: Option<(ReplyId, Box<ReloadReport>)>,
}

impl DrainingGeneration {
    /// Completes the report with the results of the drain. Returns the answer for the operator, or `None` if no
    /// operator waits.
    fn end(self) -> Option<AppAction> {
        let (reply_id, mut report) = self.reply?;
        report.drained = Some(self.drained);
        report.failed = self.aborted;
        Some(AppAction::Answer(reply_id, Ok(report)))
    }
}

impl App {
    /// Handles [`Notice::Retired`](crate::orders::Notice::Retired): a replaced generation has ended in a worker.
    pub fn retired(
        &mut self,
        worker: WorkerId,
        generation: u64,
        drained: Duration,
        aborted: u64,
    ) -> Vec<AppAction> {
        if let Some(draining) = self.draining.get_mut(&generation) {
            draining.drained = draining.drained.max(drained);
            draining.aborted += aborted;
            return self.remove_from_draining(worker, generation);
        }
        // The commit is not complete, so `drain` was not called yet. It reads this result later.
        if matches!(
            self.loading().map(|loading| &loading.phase),
            Some(LoadPhase::Committing { .. })
        ) {
            let ended_early = self.ended_early.entry(generation).or_default();
            ended_early.workers.insert(worker);
            ended_early.drained = ended_early.drained.max(drained);
            ended_early.aborted += aborted;
        }
        Vec::new()
    }

    /// Removes a worker from a drain, and ends the drain if that was the last worker.
    pub(super) fn remove_from_draining(
        &mut self,
        worker: WorkerId,
        generation: u64,
    ) -> Vec<AppAction> {
        let Some(draining) = self.draining.get_mut(&generation) else {
            return Vec::new();
        };
        draining.workers.remove(&worker);
        if !draining.workers.is_empty() {
            return Vec::new();
        }
        let ended = self.draining.remove(&generation);
        ended
            .and_then(DrainingGeneration::end)
            .into_iter()
            .collect()
    }

    /// Starts to wait until a generation has ended in these workers. No order is sent, because the workers drain the
    /// old generation by themselves after a commit.
    pub(super) fn drain(
        &mut self,
        generation: u64,
        workers: BTreeSet<WorkerId>,
        reply: Option<(ReplyId, Box<ReloadReport>)>,
    ) -> Vec<AppAction> {
        // No worker has the old generation, so the operator gets the answer at once.
        if workers.is_empty() {
            return answer(reply).into_iter().collect();
        }
        // A fast worker may have drained the generation before the last worker swapped.
        let ended_early = self.ended_early.remove(&generation).unwrap_or_default();
        let draining = DrainingGeneration {
            workers: &workers - &ended_early.workers,
            reply,
            ..ended_early
        };
        if draining.workers.is_empty() {
            return draining.end().into_iter().collect();
        }
        self.draining.insert(generation, draining);
        Vec::new()
    }
}
