//! The state machine of one app: which generation serves, which one is being loaded, and what to do next.
//!
//! [`App`] is a plain value. Each event is a method that changes the value and returns the [`AppAction`]s that the
//! supervisor carries out. The methods do not wait and do not read or write files, so tests can run every sequence
//! of events. Events name a generation by its number. An event about a generation that was discarded in the meantime
//! has a number that does not match any more, and is ignored.
//!
//! ```text
//!          request_load            prepared           loaded in all        swapped in all
//!    Idle   ─────────► Preparing ───────────► Starting ────────────► Ready ─────► Committing
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
mod request;
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
    request::{LibrarySource, LoadReason, LoadRequest},
    rollout::{LoadPhase, LoadReport, PendingLoad, Rollout},
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

/// Identifies an operator who waits for the outcome of a load. The supervisor stores the reply channel.
pub type ReplyId = u64;

/// An action that the supervisor carries out after an event.
#[derive(Debug)]
pub enum AppAction {
    /// Send the outcome of a load to the operator who requested the load.
    Answer(ReplyId, Result<Box<ReloadReport>, CommandError>),
    /// Commit all apps whose generations have started in every worker.
    Commit,
    /// Read the library unless its bytes are in memory, and write the private copy for this generation.
    Prepare {
        /// The generation.
        generation: u64,
        /// The spec of the generation.
        spec: Arc<Spec>,
        /// Where its library comes from.
        source: LibrarySource,
    },
    /// Replace all workers by fresh workers that start with the pending generation.
    Replace,
    /// Send an order to one worker. With `None`, send the order to all workers that are ready.
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
    /// The current mounts.
    pub mounts: Vec<Arc<str>>,
    /// The generation that serves in all workers.
    pub serving: Option<StagedGeneration>,
    /// The current phase of the state machine.
    pub state: AppState,
    /// Why a new generation must start in fresh worker processes (reload by process). `None` for a swap
    /// within the running workers.
    pub by_process: Option<String>,
    /// Whether the serving generation can hand its state over to the next one.
    pub hands_over: bool,
    /// How long each step of the load of the serving generation took.
    pub timings: Option<StepTimings>,
    /// The last generation that served with another content of the library: the target of `host ctl rollback`.
    pub previous: Option<StagedGeneration>,
    /// The last generation that passed its probation, or that served for a minute when `--auto-rollback` is off.
    /// After repeated crashes this generation serves again.
    pub last_good: Option<StagedGeneration>,
    /// The contents that were put aside, and why. A content in this map is not loaded again until the file changes or
    /// an operator requests a load.
    pub aside: BTreeMap<ContentHash, AsideReason>,
    /// The contents whose load failed since the last successful load. The next plan prefers other libraries of the
    /// same plugin.
    pub failed: BTreeSet<ContentHash>,
    /// The spec of the last requested load. A failed load is not repeated while the plan contains the same spec.
    pub requested_spec: Option<Arc<Spec>>,
    /// Why the last load failed. `None` after a success.
    pub last_error: Option<LoadFailure>,
    /// Replaced generations that still have requests in some worker.
    pub draining: BTreeMap<u64, DrainingGeneration>,
    /// The results of workers that have drained a replaced generation before the commit is complete: a fast worker
    /// can swap, drain and report while a slow worker has not swapped yet.
    ended_early: BTreeMap<u64, DrainingGeneration>,
    /// The number of loads so far, which is also the number of the latest generation.
    pub loads: u64,
    /// Whether a new generation goes through a probation.
    uses_probation: bool,
}

/// The phase of an app.
#[derive(Debug)]
pub enum AppState {
    /// No generation is being loaded or on probation.
    Idle,
    /// A generation is being loaded.
    Loading(Box<PendingLoad>),
    /// The serving generation is on probation.
    Probation(Box<Probation>),
}

/// Why a content of the library was put aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AsideReason {
    /// An operator or the probation rolled this spec back.
    RolledBack(Arc<Spec>),
    /// Workers crashed in this content. The text is the error for reports.
    Crashed(String),
}

impl App {
    /// Creates an app without a generation. `loads` is the number of loads of this app before it was removed or the
    /// host was upgraded. Generation numbers continue from `loads`.
    #[must_use]
    pub fn new(
        name: String,
        plugin: String,
        library: PathBuf,
        loads: u64,
        uses_probation: bool,
    ) -> Self {
        Self {
            name,
            plugin,
            library,
            mounts: Vec::new(),
            serving: None,
            state: AppState::Idle,
            by_process: None,
            hands_over: false,
            timings: None,
            previous: None,
            last_good: None,
            aside: BTreeMap::new(),
            failed: BTreeSet::new(),
            requested_spec: None,
            last_error: None,
            draining: BTreeMap::new(),
            ended_early: BTreeMap::new(),
            loads,
            uses_probation,
        }
    }

    /// Returns the library and the mounts of the app, as input for the next plan. The mounts of a generation that is
    /// kept for a probation stay reserved, because that generation may serve again.
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

    /// Returns the current probation. A probation continues while the next generation is being loaded.
    #[must_use]
    pub fn probation(&self) -> Option<&Probation> {
        match &self.state {
            AppState::Probation(probation) => Some(probation),
            AppState::Loading(loading) => loading.probation.as_ref(),
            AppState::Idle => None,
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

    /// Returns the load under way if it is the load of `generation`.
    fn loading_mut(&mut self, generation: u64) -> Option<&mut PendingLoad> {
        match &mut self.state {
            AppState::Loading(loading) if loading.generation == generation => Some(loading),
            _ => None,
        }
    }

    /// Returns whether a generation of this app uses the private copy: the generation serves, is being loaded, or can
    /// serve again after a rollback.
    #[must_use]
    pub fn uses_copy(&self, copy: &PathBuf) -> bool {
        let kept = self.probation().into_iter();
        let kept = kept.flat_map(|probation| probation.kept.iter().chain([&probation.before]));
        let loading = self.loading().and_then(PendingLoad::staged);
        self.serving
            .iter()
            .chain(&self.previous)
            .chain(&self.last_good)
            .chain(kept)
            .chain(loading)
            .any(|staged| staged.copy == *copy)
    }

    /// Removes the app from all workers. Operators who wait for a load under way get [`CommandError::Superseded`].
    pub fn remove(&mut self) -> Vec<AppAction> {
        let mut actions = Vec::new();
        if let AppState::Loading(loading) = std::mem::replace(&mut self.state, AppState::Idle) {
            actions.extend(loading.reply_ids().map(superseded));
        }
        // `draining` stays, because replaced generations may still have requests.
        self.mounts.clear();
        self.serving = None;
        let app = self.name.clone();
        actions.push(AppAction::Send(None, Order::Remove { app }));
        actions
    }

    /// Handles the exit of a worker. Loads, drains and probations continue without that worker.
    pub fn remove_worker(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let mut actions = Vec::new();
        // The keys are copied, because the loop removes entries.
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
            self.last_good.clone_from(&self.serving);
        }
    }

    /// Logs `text`: why a library is not loaded again.
    fn log_unchanged(&self, request: &LoadRequest, text: &str) {
        info!(
            plugin = self.name,
            file = %self.library.display(),
            hash = request.spec.hash.short(),
            "{text}"
        );
    }
}

/// Returns the answer for an operator whose load was replaced by a newer request.
fn superseded(reply_id: ReplyId) -> AppAction {
    AppAction::Answer(reply_id, Err(CommandError::Superseded))
}

/// Returns the answer for the operator who waits for the load, if any.
fn answer(reply: Option<(ReplyId, Box<ReloadReport>)>) -> Option<AppAction> {
    reply.map(|(reply_id, report)| AppAction::Answer(reply_id, Ok(report)))
}

#[cfg(test)]
mod tests;
