//! What is known of a generation on its way: what was wanted, and in which workers it has started.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use super::{AskId, Probation, WorkerId};
use crate::{
    folder::candidate::Candidate,
    orders::{Spec, Started, Step, Took},
};

/// A generation that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the generation is made of.
    pub spec: Arc<Spec>,
    /// Where its library comes from.
    pub source: Source,
    /// Why it is wanted.
    pub why: Why,
    /// Who waits for the outcome.
    pub ask: Option<AskId>,
}

/// Where the bytes of a library come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A library that was read.
    Candidate(Arc<Candidate>),
    /// A file that is to be read: a private copy, or a library in the folder.
    File(PathBuf),
}

/// Why a generation is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The library is new in the folder, or changed; or what the operator says of the app did.
    Changed,
    /// The operator wants the library loaded again.
    Reload,
    /// The version served before, and is to serve again.
    Rollback,
}

/// A generation on its way.
#[derive(Debug)]
pub struct Loading {
    /// Its number.
    pub generation: u64,
    /// What was wanted.
    pub wanted: Wanted,
    /// How far it is.
    pub phase: Phase,
    /// What is wanted after it.
    pub next: Option<Wanted>,
    /// The probation of what serves, which goes on meanwhile.
    pub probation: Option<Probation>,
}

/// How far a generation on its way is.
#[derive(Debug)]
pub enum Phase {
    /// Its library is read and copied.
    Preparing,
    /// It starts in workers, or has started in all of them and may be committed.
    Starting(Rollout),
    /// It starts in fresh workers, which take the place of those that run.
    Replacing(Rollout),
    /// The workers were told to send requests to it.
    Committing {
        /// What was committed.
        rollout: Rollout,
        /// The workers that have not answered.
        waiting: BTreeSet<WorkerId>,
        /// How many requests were in the generation before.
        in_flight: u64,
        /// The longest time that a swap took.
        swap: Duration,
    },
}

/// In which workers a generation has started.
#[derive(Debug)]
pub struct Rollout {
    /// What is started.
    pub started: Started,
    /// The step that the load is at.
    pub step: Step,
    /// The workers in which it starts.
    pub starting: BTreeSet<WorkerId>,
    /// The workers in which it has started.
    pub loaded: BTreeSet<WorkerId>,
    /// Whether a worker has proved that it starts, so that the others may follow.
    pub is_proved: bool,
    /// How long each step took in the first worker.
    pub took: Took,
    /// Whether the generation before gave its state away.
    pub handed_over: bool,
    /// Whether the generation has state to hand over itself.
    pub hands_over: bool,
}

/// What a worker says of a generation that it has started.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How long each step took.
    pub took: Took,
    /// Whether the generation before gave its state away.
    pub handed_over: bool,
    /// Whether the generation has state to hand over itself.
    pub hands_over: bool,
}

impl Rollout {
    /// Whether the generation has started in all workers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_proved && self.starting.is_empty() && !self.loaded.is_empty()
    }
}

impl Loading {
    /// What is started, once that is known.
    #[must_use]
    pub fn started(&self) -> Option<&Started> {
        self.rollout().map(|rollout| &rollout.started)
    }

    /// In which workers it has started, once it starts.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.phase {
            Phase::Preparing => None,
            Phase::Starting(rollout)
            | Phase::Replacing(rollout)
            | Phase::Committing { rollout, .. } => Some(rollout),
        }
    }

    /// The name of the step that it is at.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match &self.phase {
            Phase::Preparing => Step::Stage.name(),
            Phase::Starting(rollout) if !rollout.is_ready() => rollout.step.name(),
            Phase::Replacing(rollout) => rollout.step.name(),
            Phase::Starting(_) | Phase::Committing { .. } => "swap",
        }
    }

    /// All who wait for an outcome.
    pub fn asks(&self) -> impl Iterator<Item = AskId> + use<> {
        let next = self.next.as_ref().and_then(|next| next.ask);
        self.wanted.ask.into_iter().chain(next)
    }
}
