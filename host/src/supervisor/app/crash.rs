//! The reaction of an app to crashes in one of its generations.

use super::{App, AppAction, AppState, AsideReason, LibrarySource, LoadReason, LoadRequest};
use crate::{
    folder::store::ContentHash,
    orders::{Order, StagedGeneration},
    supervisor::outcome::LoadFailure,
};

/// The generation that a crash is counted against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The app.
    pub app: String,
    /// The generation.
    pub generation: u64,
    /// Whether the generation was still starting. If true, one crash is enough to put the generation aside.
    pub was_starting: bool,
}

impl App {
    /// Returns the content of a generation, or `None` if this app does not store that generation any more.
    #[must_use]
    pub fn hash_of(&self, generation: u64) -> Option<ContentHash> {
        let loading = self
            .loading()
            .filter(|loading| loading.generation == generation);
        let kept = self.probation().into_iter();
        let kept = kept.flat_map(|probation| probation.kept.iter().chain([&probation.before]));
        let staged = self
            .serving
            .iter()
            .chain(&self.previous)
            .chain(&self.last_good)
            .chain(kept)
            .find(|staged| staged.generation == generation);
        loading
            .map(|loading| loading.request.spec.hash)
            .or_else(|| staged.map(|staged| staged.spec.hash))
    }

    /// Puts a generation aside, and starts the last good generation in its place.
    ///
    /// A generation that is being loaded is discarded. If the generation serves, all workers suspend the app: they
    /// answer 503 until the last good generation has started. If no good generation exists, they answer 503 until the
    /// app is loaded again. For any other generation, only its content is put aside.
    pub fn put_aside(
        &mut self,
        generation: u64,
        hash: ContentHash,
        failure: LoadFailure,
    ) -> Vec<AppAction> {
        let aside = AsideReason::Crashed(failure.error.clone());
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
        // Read before the state changes, because the generation before the probation is part of the state.
        let good = self.last_good_except(hash);
        self.serving = None;
        // The probation ends, because its generation does not serve any more. A load of another generation continues.
        self.state = match std::mem::replace(&mut self.state, AppState::Idle) {
            AppState::Probation(_) => AppState::Idle,
            state => state,
        };
        let app = self.name.clone();
        let mut actions = vec![AppAction::Send(None, Order::Suspend { app })];
        if let Some(good) = good {
            // The app owns these mounts from now on, so that the next plan does not give them to another app.
            self.mounts.clone_from(&good.spec.mounts);
            actions.extend(self.request_load(LoadRequest {
                spec: good.spec,
                source: LibrarySource::File(good.copy),
                reason: LoadReason::Rollback,
                reply_id: None,
            }));
        }
        actions
    }

    /// Returns the most trusted generation whose content is not `bad` and was not put aside after crashes. The order
    /// of trust is: the generation before the probation, the last good one, the previous one.
    fn last_good_except(&self, bad: ContentHash) -> Option<StagedGeneration> {
        let before = self.probation().map(|probation| &probation.before);
        let candidates = before
            .into_iter()
            .chain(&self.last_good)
            .chain(&self.previous);
        candidates
            .filter(|staged| staged.spec.hash != bad)
            .find(|staged| {
                !matches!(
                    self.aside.get(&staged.spec.hash),
                    Some(AsideReason::Crashed(_))
                )
            })
            .cloned()
    }
}
