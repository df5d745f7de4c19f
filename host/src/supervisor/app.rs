//! The state machine of one app: which generation serves, which one is being loaded, and what to do next.
//!
//! [`App`] is a plain value. Each event is a method that changes the value and returns [`AppAction`]s for the
//! supervisor to carry out. Nothing here waits or touches files, so tests can drive every order of events.
//! Events name generations by number: an event about a generation that was discarded meanwhile is
//! recognised by its number, and ignored.
//!
//! ```text
//!          request_load            prepared           loaded in all        swapped in all
//!   Resting ─────────► Preparing ───────────► Starting ────────────► Ready ─────► Committing
//!      ▲                   │ failed               │ failed                            │
//!      ├───────────────────┴──────────────────────┘                                   │
//!      ├──────────────────────────────────────────────────────── without probation ───┤
//!      └── passed ── Probation ◄─────────────────────────────────── with probation ───┘
//!                        └ failed: the generation before serves again
//! ```

mod commit;
mod crash;
mod draining;
mod loading;
mod probation;
mod replacing;
mod rollout;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tracing::info;

pub use self::{
    crash::Suspect,
    draining::DrainingGeneration,
    probation::Probation,
    rollout::{
        LibrarySource, LoadPhase, LoadReason, LoadReport, LoadRequest, PendingLoad, Rollout,
    },
};
use super::{
    catalog::CurrentApp,
    error::CommandError,
    outcome::{LoadFailure, ReloadReport},
};
use crate::{
    folder::store::ContentHash,
    orders::{Order, Spec, StagedGeneration, StepTimings},
};

/// The number of a worker, from 1. A number is never reused.
pub type WorkerId = u64;

/// Identifies an operator who waits for the outcome of a load. The supervisor keeps the reply channel.
pub type ReplyId = u64;

/// What the supervisor is to do after an event.
#[derive(Debug)]
pub enum AppAction {
    /// Send the outcome of a load to the operator who asked for it.
    Answer(ReplyId, Result<Box<ReloadReport>, CommandError>),
    /// Commit all apps whose generations have started in every worker.
    Commit,
    /// Read the library if its bytes are not at hand, and write the private copy for this generation.
    Prepare {
        /// The generation.
        generation: u64,
        /// The spec of the generation.
        spec: Arc<Spec>,
        /// Where its library comes from.
        source: LibrarySource,
    },
    /// Replace all workers by fresh ones that start with the pending generation.
    Replace,
    /// Send an order to one worker, or to all workers that are ready.
    Send(Option<WorkerId>, Order),
    /// Remove a private copy that no worker has opened.
    RemoveCopy(PathBuf),
}

/// An app, from its first load until its library is removed.
#[derive(Debug)]
pub struct App {
    /// The app's name.
    pub name: String,
    /// The name of the plugin in the library. One plugin can provide several apps.
    pub plugin: String,
    /// The library in the plugins folder.
    pub library: PathBuf,
    /// Where the app is mounted now.
    pub mounts: Vec<Arc<str>>,
    /// The generation that serves in all workers.
    pub serving: Option<StagedGeneration>,
    /// The current phase of the state machine.
    pub state: AppState,
    /// Why a new generation must start in fresh worker processes (reload by process). `None` for a swap
    /// within the running workers.
    pub by_process: Option<String>,
    /// Whether the serving generation can hand its state over.
    pub hands_over: bool,
    /// How long each step of the load of the serving generation took.
    pub timings: Option<StepTimings>,
    /// The last generation with another library: the target of `host ctl rollback`.
    pub previous: Option<StagedGeneration>,
    /// The last good generation: it passed its probation, or served for a minute without one. After
    /// repeated crashes the app goes back to it.
    pub good: Option<StagedGeneration>,
    /// Contents that were put aside, and why. They are not loaded again until the file changes or the
    /// operator asks for it.
    pub aside: BTreeMap<ContentHash, AsideReason>,
    /// Contents whose load failed since the last successful load. Other libraries of the same plugin come
    /// first in the next plan.
    pub failed: BTreeSet<ContentHash>,
    /// The last requested spec. A failed load is not repeated while the plan still asks for the same.
    pub tried: Option<Arc<Spec>>,
    /// Why the last load failed. `None` after a success.
    pub last_error: Option<LoadFailure>,
    /// Replaced generations whose last requests are not over in every worker.
    pub draining: BTreeMap<u64, DrainingGeneration>,
    /// Generations that already ended in some workers although other workers had not swapped yet. A fast
    /// worker can swap, drain and report before a slow one has swapped.
    ended_early: BTreeMap<u64, DrainingGeneration>,
    /// The number of loads so far, which is also the number of the latest generation.
    pub loads: u64,
    /// Whether a new generation goes through a probation.
    watches: bool,
}

/// The phase of an app.
#[derive(Debug)]
pub enum AppState {
    /// No load and no probation is going on.
    Resting,
    /// A generation is being loaded.
    Loading(Box<PendingLoad>),
    /// The serving generation is on probation.
    Probation(Box<Probation>),
}

/// Why a content was put aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AsideReason {
    /// The operator or the probation rolled this spec back.
    RolledBack(Arc<Spec>),
    /// Workers crashed in it. The text says how often.
    Crashed(String),
}

impl App {
    /// Creates an app without a generation. `loads` is the number of its loads before it was removed, or
    /// before an upgrade of the host.
    #[must_use]
    pub fn new(name: String, plugin: String, library: PathBuf, loads: u64, watches: bool) -> Self {
        Self {
            name,
            plugin,
            library,
            mounts: Vec::new(),
            serving: None,
            state: AppState::Resting,
            by_process: None,
            hands_over: false,
            timings: None,
            previous: None,
            good: None,
            aside: BTreeMap::new(),
            failed: BTreeSet::new(),
            tried: None,
            last_error: None,
            draining: BTreeMap::new(),
            ended_early: BTreeMap::new(),
            loads,
            watches,
        }
    }

    /// Returns what the app owns, as input for the next plan. Mounts of a generation that is kept for a
    /// probation stay reserved, because that generation may serve there again.
    #[must_use]
    pub fn current(&self) -> CurrentApp {
        let mut mounts = self.mounts.clone();
        let kept = self
            .probation()
            .and_then(|probation| probation.kept.as_ref());
        for mount in kept.iter().flat_map(|kept| &kept.spec.mounts) {
            if !mounts.contains(mount) {
                mounts.push(Arc::clone(mount));
            }
        }
        CurrentApp {
            library: self.library.clone(),
            mounts,
            serves: self.serving.is_some(),
            failed: self.failed.clone(),
        }
    }

    /// Returns the current probation. It goes on while the next generation is being loaded.
    #[must_use]
    pub fn probation(&self) -> Option<&Probation> {
        match &self.state {
            AppState::Probation(probation) => Some(probation),
            AppState::Loading(loading) => loading.probation.as_ref(),
            AppState::Resting => None,
        }
    }

    /// Returns the generation that is being loaded.
    #[must_use]
    pub fn loading(&self) -> Option<&PendingLoad> {
        match &self.state {
            AppState::Loading(loading) => Some(loading),
            _ => None,
        }
    }

    fn loading_mut(&mut self, generation: u64) -> Option<&mut PendingLoad> {
        match &mut self.state {
            AppState::Loading(loading) if loading.generation == generation => Some(loading),
            _ => None,
        }
    }

    /// Returns whether a private copy is in use: it serves, is being loaded, or can be rolled back to.
    #[must_use]
    pub fn uses_copy(&self, copy: &PathBuf) -> bool {
        let kept = self.probation().into_iter();
        let kept = kept.flat_map(|probation| probation.kept.iter().chain([&probation.before]));
        let loading = self.loading().and_then(PendingLoad::staged);
        self.serving
            .iter()
            .chain(&self.previous)
            .chain(&self.good)
            .chain(kept)
            .chain(loading)
            .any(|staged| staged.copy == *copy)
    }

    /// Removes the app from all workers. A load that is under way is superseded.
    pub fn remove(&mut self) -> Vec<AppAction> {
        let mut actions = Vec::new();
        if let AppState::Loading(loading) = std::mem::replace(&mut self.state, AppState::Resting) {
            actions.extend(loading.reply_ids().map(superseded));
        }
        self.mounts.clear();
        self.serving = None;
        let app = self.name.clone();
        actions.push(AppAction::Send(None, Order::Remove { app }));
        actions
    }

    /// Handles the exit of a worker. Loads, drains and probations go on without that worker.
    pub fn worker_gone(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let mut actions = Vec::new();
        for generation in self.draining.keys().copied().collect::<Vec<_>>() {
            actions.extend(self.remove_from_draining(worker, generation));
        }
        actions.extend(self.remove_from_load(worker));
        actions.extend(self.remove_from_probation(worker));
        actions
    }

    /// Marks the generation as good, if it still serves.
    pub fn mark_good(&mut self, generation: u64) {
        let serves = self.serving.as_ref();
        if serves.is_some_and(|serving| serving.generation == generation) {
            self.good.clone_from(&self.serving);
        }
    }

    /// Logs that a library is not loaded again, because it is the same as before.
    fn log_unchanged(&self, request: &LoadRequest, text: &str) {
        info!(
            plugin = self.name,
            file = %self.library.display(),
            hash = request.spec.hash.short(),
            "{text}"
        );
    }
}

fn superseded(reply_id: ReplyId) -> AppAction {
    AppAction::Answer(reply_id, Err(CommandError::Superseded))
}

fn answer(reply: Option<(ReplyId, Box<ReloadReport>)>) -> Option<AppAction> {
    reply.map(|(reply_id, proof)| AppAction::Answer(reply_id, Ok(proof)))
}

#[cfg(test)]
mod tests;
