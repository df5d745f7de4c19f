//! One app: what serves, what is on its way, and what to do when something happens to it.
//!
//! [`App`] is a value. An event (a method) changes it and returns [`Action`]s, which the supervisor
//! carries out; nothing here waits, reads files or knows processes but by their number. Generations
//! are known by their number alone, so an event about a generation that is no longer wanted is told
//! from one that is.
//!
//! ```text
//!              want                prepared           loaded in all        swapped in all
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
    crash::Blame,
    draining::Draining,
    probation::Probation,
    rollout::{Loading, Phase, Report, Rollout, Source, Wanted, Why},
};
use super::{
    catalog::Holding,
    error::AskError,
    outcome::{Failure, Proof},
};
use crate::{
    folder::store::Hash,
    orders::{Order, Spec, Started, Took},
};

/// Which worker: numbered from 1, and never used again.
pub type WorkerId = u64;

/// Who waits for the outcome of a load; the supervisor knows where to send the answer.
pub type AskId = u64;

/// What the supervisor is to do.
#[derive(Debug)]
pub enum Action {
    /// Answer who asked.
    Answer(AskId, Result<Box<Proof>, AskError>),
    /// See whether all that is ready can be committed.
    Commit,
    /// Read the source, if that is needed, and write the private copy for this generation.
    Prepare {
        /// The generation.
        generation: u64,
        /// What the generation is made of.
        spec: Arc<Spec>,
        /// Where its library comes from.
        source: Source,
    },
    /// Start fresh workers with what is on its way, in place of all that run.
    Replace,
    /// Tell workers; all that serve when none are named.
    Send(Option<WorkerId>, Order),
    /// Remove a copy that no worker has opened.
    RemoveCopy(PathBuf),
}

/// An app.
#[derive(Debug)]
pub struct App {
    /// The app's name.
    pub name: String,
    /// The plugin that the app is.
    pub plugin: String,
    /// The library in the plugins folder.
    pub library: PathBuf,
    /// Where the app is mounted now.
    pub mounts: Vec<Arc<str>>,
    /// What serves, in all workers.
    pub serving: Option<Started>,
    /// What is being done.
    pub state: State,
    /// Why a new generation takes over in fresh workers; none when it does within those that run.
    pub by_process: Option<String>,
    /// Whether what serves has state to hand over.
    pub hands_over: bool,
    /// How long the load of what serves took.
    pub took: Option<Took>,
    /// What served before, if its library was another.
    pub previous: Option<Started>,
    /// The last generation that proved good: it passed its probation, or served long enough.
    pub good: Option<Started>,
    /// What is not loaded again unless its content changes or the operator asks, and why.
    pub aside: BTreeMap<Hash, Aside>,
    /// The contents whose load failed since something last served.
    pub failed: BTreeSet<Hash>,
    /// What was last wanted, so that a load that failed is not tried again for nothing.
    pub tried: Option<Arc<Spec>>,
    /// Why the last load failed; none when it did not.
    pub last_error: Option<Failure>,
    /// Generations that finish what they have.
    pub draining: BTreeMap<u64, Draining>,
    /// Generations that have ended in these workers while others had not swapped yet.
    early: BTreeMap<u64, Draining>,
    /// The number of the last load.
    pub loads: u64,
    /// Whether a new generation is watched, and the one before kept.
    watches: bool,
}

/// What is being done about an app.
#[derive(Debug)]
pub enum State {
    /// Nothing: what serves, serves.
    Resting,
    /// A generation is on its way.
    Loading(Box<Loading>),
    /// The generation that serves is new, and watched.
    Probation(Box<Probation>),
}

/// Why something is not loaded again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Aside {
    /// The operator, or the probation, went back to the version before.
    RolledBack(Arc<Spec>),
    /// Workers died of it.
    Crashed(String),
}

impl App {
    /// An app of which nothing was loaded in this life of the server, but `loads` generations
    /// before.
    #[must_use]
    pub fn new(name: String, plugin: String, library: PathBuf, loads: u64, watches: bool) -> Self {
        Self {
            name,
            plugin,
            library,
            mounts: Vec::new(),
            serving: None,
            state: State::Resting,
            by_process: None,
            hands_over: false,
            took: None,
            previous: None,
            good: None,
            aside: BTreeMap::new(),
            failed: BTreeSet::new(),
            tried: None,
            last_error: None,
            draining: BTreeMap::new(),
            early: BTreeMap::new(),
            loads,
            watches,
        }
    }

    /// What the app has, for the next plan. The mounts of a generation that is kept for a probation
    /// stay reserved, because it may serve there again.
    #[must_use]
    pub fn holding(&self) -> Holding {
        let mut mounts = self.mounts.clone();
        let kept = self
            .probation()
            .and_then(|probation| probation.kept.as_ref());
        for mount in kept.iter().flat_map(|kept| &kept.spec.mounts) {
            if !mounts.contains(mount) {
                mounts.push(Arc::clone(mount));
            }
        }
        Holding {
            library: self.library.clone(),
            mounts,
            serves: self.serving.is_some(),
            failed: self.failed.clone(),
        }
    }

    /// The probation that is under way, also while the next generation is on its way.
    #[must_use]
    pub fn probation(&self) -> Option<&Probation> {
        match &self.state {
            State::Probation(probation) => Some(probation),
            State::Loading(loading) => loading.probation.as_ref(),
            State::Resting => None,
        }
    }

    /// The generation that is on its way.
    #[must_use]
    pub fn loading(&self) -> Option<&Loading> {
        match &self.state {
            State::Loading(loading) => Some(loading),
            _ => None,
        }
    }

    fn loading_mut(&mut self, generation: u64) -> Option<&mut Loading> {
        match &mut self.state {
            State::Loading(loading) if loading.generation == generation => Some(loading),
            _ => None,
        }
    }

    /// Whether a private copy is needed: it is loaded, on its way, or what the app may go back to.
    #[must_use]
    pub fn needs(&self, copy: &PathBuf) -> bool {
        let kept = self.probation().into_iter();
        let kept = kept.flat_map(|probation| probation.kept.iter().chain([&probation.before]));
        let loading = self.loading().and_then(Loading::started);
        self.serving
            .iter()
            .chain(&self.previous)
            .chain(&self.good)
            .chain(kept)
            .chain(loading)
            .any(|started| started.copy == *copy)
    }

    /// The app goes: nothing of it serves any more.
    pub fn remove(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if let State::Loading(loading) = std::mem::replace(&mut self.state, State::Resting) {
            actions.extend(loading.asks().map(superseded));
        }
        self.mounts.clear();
        self.serving = None;
        let app = self.name.clone();
        actions.push(Action::Send(None, Order::Remove { app }));
        actions
    }

    /// A worker is gone, and with it everything that it had.
    pub fn worker_gone(&mut self, worker: WorkerId) -> Vec<Action> {
        let mut actions = Vec::new();
        for generation in self.draining.keys().copied().collect::<Vec<_>>() {
            actions.extend(self.left(worker, generation));
        }
        actions.extend(self.loading_without(worker));
        actions.extend(self.watched_without(worker));
        actions
    }

    /// The generation that serves has done so for long enough to be trusted.
    pub fn proved_good(&mut self, generation: u64) {
        let serves = self.serving.as_ref();
        if serves.is_some_and(|serving| serving.generation == generation) {
            self.good.clone_from(&self.serving);
        }
    }

    /// Says that a library is not loaded since nothing about it changed.
    fn say_unchanged(&self, wanted: &Wanted, text: &str) {
        info!(
            plugin = self.name,
            file = %self.library.display(),
            hash = wanted.spec.hash.short(),
            "{text}"
        );
    }
}

fn superseded(ask: AskId) -> Action {
    Action::Answer(ask, Err(AskError::Superseded))
}

fn answer(asked: Option<(AskId, Box<Proof>)>) -> Option<Action> {
    asked.map(|(ask, proof)| Action::Answer(ask, Ok(proof)))
}

#[cfg(test)]
mod tests;
