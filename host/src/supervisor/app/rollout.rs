//! A generation that is being loaded: what was requested, and in which workers it has started.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use super::{Probation, ReplyId, WorkerId};
use crate::{
    folder::candidate::Candidate,
    orders::{Spec, StagedGeneration, Step, StepTimings},
};

/// A request to load a generation.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The spec of the generation.
    pub spec: Arc<Spec>,
    /// Where its library comes from.
    pub source: LibrarySource,
    /// Why the load was requested.
    pub reason: LoadReason,
    /// The operator who waits for the outcome.
    pub reply_id: Option<ReplyId>,
}

/// Where the bytes of a library come from.
#[derive(Clone, Debug)]
pub enum LibrarySource {
    /// A library that was read and checked, with its bytes in memory.
    Candidate(Arc<Candidate>),
    /// A file that is yet to be read: a private copy, or a library in the plugins folder.
    File(PathBuf),
}

/// Why a load was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadReason {
    /// The library is new or changed, or the settings of the app changed.
    Changed,
    /// The operator asked for a reload (`host ctl reload`, `host ctl deploy`).
    Reload,
    /// An earlier version is to serve again.
    Rollback,
}

/// A generation that is being loaded.
#[derive(Debug)]
pub struct PendingLoad {
    /// The generation's number.
    pub generation: u64,
    /// The request that began the load.
    pub request: LoadRequest,
    /// How far the load is.
    pub phase: LoadPhase,
    /// The request that begins when this load is over. A newer request replaces it.
    pub next: Option<LoadRequest>,
    /// The probation of the serving generation, which goes on during the load.
    pub probation: Option<Probation>,
}

/// How far a load is.
#[derive(Debug)]
pub enum LoadPhase {
    /// The library is being read, copied and opened in a trial process.
    Preparing,
    /// The generation starts in one worker after the other, or has started in all and waits for the commit.
    Starting(Rollout),
    /// The generation starts in fresh workers that replace the running ones (reload by process).
    Replacing(Rollout),
    /// The workers were told to commit.
    Committing {
        /// The generation that was committed.
        rollout: Rollout,
        /// The workers that have not swapped yet.
        waiting: BTreeSet<WorkerId>,
        /// Requests that were in flight in the old generation at the swap, summed over the workers.
        in_flight: u64,
        /// The longest swap among the workers.
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
    /// Whether the first worker has started the generation. Only then the other workers follow, so that a
    /// bad version costs one worker at most.
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
            LoadPhase::Starting(_) | LoadPhase::Committing { .. } => "swap",
        }
    }

    /// Returns all operators who wait for this load or for the one after it.
    pub fn reply_ids(&self) -> impl Iterator<Item = ReplyId> + use<> {
        let next = self.next.as_ref().and_then(|next| next.reply_id);
        self.request.reply_id.into_iter().chain(next)
    }
}
