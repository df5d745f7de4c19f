//! A generation of which workers died.

use super::{Action, App, Aside, Source, State, Wanted, Why};
use crate::{
    folder::store::Hash,
    orders::{Order, Started},
    supervisor::outcome::Failure,
};

/// Who a worker died of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The app.
    pub app: String,
    /// The generation.
    pub generation: u64,
    /// Whether the generation was starting, so that it never served.
    pub while_starting: bool,
}

impl App {
    /// What the generation is made of, as far as it is known.
    #[must_use]
    pub fn hash_of(&self, generation: u64) -> Option<Hash> {
        let loading = self
            .loading()
            .filter(|loading| loading.generation == generation);
        let kept = self.probation().into_iter();
        let kept = kept.flat_map(|probation| probation.kept.iter().chain([&probation.before]));
        let started = self
            .serving
            .iter()
            .chain(&self.previous)
            .chain(&self.good)
            .chain(kept)
            .find(|started| started.generation == generation);
        loading
            .map(|loading| loading.wanted.spec.hash)
            .or_else(|| started.map(|started| started.spec.hash))
    }

    /// The generation is not loaded again: the last good version serves instead, or nothing does.
    pub fn put_aside(&mut self, generation: u64, hash: Hash, failure: Failure) -> Vec<Action> {
        let aside = Aside::Crashed(failure.error.clone());
        if self
            .loading()
            .is_some_and(|loading| loading.generation == generation)
        {
            let actions = self.load_failed(generation, failure);
            self.aside.insert(hash, aside);
            return actions;
        }
        self.aside.insert(hash, aside);
        let serves = self.serving.as_ref();
        if serves.is_none_or(|serving| serving.generation != generation) {
            return Vec::new();
        }
        self.last_error = Some(failure);
        let good = self.good_beside(hash);
        self.serving = None;
        self.state = match std::mem::replace(&mut self.state, State::Resting) {
            State::Probation(_) => State::Resting,
            state => state,
        };
        let app = self.name.clone();
        let mut actions = vec![Action::Send(None, Order::Suspend { app })];
        if let Some(good) = good {
            self.mounts.clone_from(&good.spec.mounts);
            actions.extend(self.want(Wanted {
                spec: good.spec,
                source: Source::File(good.copy),
                why: Why::Rollback,
                ask: None,
            }));
        }
        actions
    }

    /// The last version that may serve in place of a bad one.
    fn good_beside(&self, bad: Hash) -> Option<Started> {
        let kept = self.probation().map(|probation| &probation.before);
        let candidates = kept.into_iter().chain(&self.good).chain(&self.previous);
        candidates
            .filter(|started| started.spec.hash != bad)
            .find(|started| !matches!(self.aside.get(&started.spec.hash), Some(Aside::Crashed(_))))
            .cloned()
    }
}
