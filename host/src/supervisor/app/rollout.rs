//! A generation that is being loaded: what was requested, and in which workers it has started.

use std::{collections::BTreeSet, time::Duration};

use super::{LoadRequest, Probation, ReplyId, WorkerId};
use crate::orders::{StagedGeneration, Step, StepTimings};

/// A generation that is being loaded.
#[derive(Debug)]
pub struct PendingLoad {
    /// The generation's number.
    pub generation: u64,
    /// The request that began the load.
    pub request: LoadRequest,
    /// The current phase of the load.
    pub phase: LoadPhase,
    /// The request that begins when this load has ended. A newer request replaces this one.
    pub next: Option<LoadRequest>,
    /// The probation of the serving generation. The probation continues during the load.
    pub probation: Option<Probation>,
}

/// The phase of a load.
#[derive(Debug)]
pub enum LoadPhase {
    /// The library is being read, copied and opened in a trial process.
    Preparing,
    /// The generation starts in the first worker and then in the others, or has started in all and waits for the
    /// commit.
    Starting(Rollout),
    /// The generation starts in fresh workers that replace the running ones (reload by process).
    Replacing(Rollout),
    /// The workers have the order to commit.
    Committing {
        /// The generation that is being committed.
        rollout: Rollout,
        /// The workers that have not swapped yet.
        waiting: BTreeSet<WorkerId>,
        /// Requests that were in flight in the old generation at the swap, summed over the workers.
        in_flight: u64,
        /// The duration of the longest swap among the workers.
        swap: Duration,
    },
}

/// The workers in which a generation starts or has started.
#[derive(Debug)]
pub struct Rollout {
    /// The generation, with its private copy.
    pub staged: StagedGeneration,
    /// The current step of the load in the first worker.
    pub step: Step,
    /// The workers in which the generation is starting.
    pub starting: BTreeSet<WorkerId>,
    /// The workers in which the generation has started.
    pub loaded: BTreeSet<WorkerId>,
    /// Whether the first worker has started the generation. The other workers start the generation only after that,
    /// so that a version that crashes at its start ends at most one worker.
    pub is_verified: bool,
    /// How long each step took in the first worker.
    pub timings: StepTimings,
    /// Whether the old generation has handed its state over.
    pub handed_over: bool,
    /// Whether the new generation can hand its own state over later.
    pub hands_over: bool,
}

/// The report of a worker about a generation that it has started.
#[derive(Clone, Copy, Debug)]
pub struct LoadReport {
    /// How long each step took.
    pub timings: StepTimings,
    /// Whether the old generation has handed its state over.
    pub handed_over: bool,
    /// Whether the new generation can hand its own state over later.
    pub hands_over: bool,
}

impl Rollout {
    /// Returns whether the generation has started in all workers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_verified && self.starting.is_empty() && !self.loaded.is_empty()
    }
}

impl PendingLoad {
    /// Returns the generation with its private copy, once the copy is written.
    #[must_use]
    pub fn staged(&self) -> Option<&StagedGeneration> {
        self.rollout().map(|rollout| &rollout.staged)
    }

    /// Returns the rollout, once the private copy is written.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.phase {
            LoadPhase::Preparing => None,
            LoadPhase::Starting(rollout)
            | LoadPhase::Replacing(rollout)
            | LoadPhase::Committing { rollout, .. } => Some(rollout),
        }
    }

    /// Returns the name of the current step, for operators.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match &self.phase {
            LoadPhase::Preparing => Step::Stage.name(),
            LoadPhase::Starting(rollout) if !rollout.is_ready() => rollout.step.name(),
            LoadPhase::Replacing(rollout) => rollout.step.name(),
            // A generation that has started in all workers waits for the swap.
            LoadPhase::Starting(_) | LoadPhase::Committing { .. } => "swap",
        }
    }

    /// Returns the operators who wait for this load or for the queued one.
    pub fn reply_ids(&self) -> impl Iterator<Item = ReplyId> + use<> {
        let next = self.next.as_ref().and_then(|next| next.reply_id);
        self.request.reply_id.into_iter().chain(next)
    }
}
