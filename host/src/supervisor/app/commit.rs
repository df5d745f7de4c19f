//! A generation that has started takes over: in all workers at one moment, and then for good.

use std::{mem, sync::Arc, time::Duration};

use tracing::info;

use super::{Action, App, Aside, Loading, Phase, Probation, Rollout, State, Why, WorkerId, answer};
use crate::{
    orders::{Commit, Started, Took},
    supervisor::outcome::Proof,
};

impl App {
    /// Starting → Committing, when the generation has started in all workers: what they are to be
    /// told, at one moment with what they are told of other apps.
    pub fn commit(&mut self) -> Option<Commit> {
        let watches = self.watches && self.serving.is_some();
        if !self.is_ready() {
            return None;
        }
        let State::Loading(loading) = &mut self.state else {
            return None;
        };
        let Phase::Starting(rollout) = mem::replace(&mut loading.phase, Phase::Preparing) else {
            return None;
        };
        self.early.clear();
        let commit = Commit {
            app: rollout.started.app.clone(),
            generation: loading.generation,
            watch: watches && loading.wanted.why != Why::Rollback,
        };
        loading.phase = Phase::Committing {
            waiting: rollout.loaded.clone(),
            rollout,
            in_flight: 0,
            swap: Duration::ZERO,
        };
        Some(commit)
    }

    /// The generation serves in a worker; once it does in all, it is what serves.
    pub fn swapped(
        &mut self,
        worker: WorkerId,
        generation: u64,
        took: Duration,
        before: u64,
    ) -> Vec<Action> {
        let Some(loading) = self.loading_mut(generation) else {
            return Vec::new();
        };
        let Phase::Committing {
            waiting,
            in_flight,
            swap,
            ..
        } = &mut loading.phase
        else {
            return Vec::new();
        };
        waiting.remove(&worker);
        *in_flight += before;
        *swap = took.max(*swap);
        self.finish_if_all_swapped()
    }

    pub(super) fn finish_if_all_swapped(&mut self) -> Vec<Action> {
        match mem::replace(&mut self.state, State::Resting) {
            State::Loading(loading) if matches!(&loading.phase, Phase::Committing { waiting, .. } if waiting.is_empty()) => {
                self.finish(*loading)
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Committing → Probation or Resting.
    pub(super) fn finish(&mut self, loading: Loading) -> Vec<Action> {
        let Loading {
            wanted,
            phase,
            next,
            probation,
            ..
        } = loading;
        let Phase::Committing {
            rollout,
            in_flight,
            swap,
            ..
        } = phase
        else {
            return Vec::new();
        };
        self.hands_over = rollout.hands_over;
        let Rollout {
            started,
            mut took,
            loaded: workers,
            handed_over,
            ..
        } = rollout;
        took.swap = swap;
        let before = self.serving.replace(started.clone());
        self.mounts.clone_from(&started.spec.mounts);
        self.took = Some(took);
        self.last_error = None;
        self.failed.clear();
        self.note_before(before.as_ref(), &started, wanted.why);
        self.say_loaded(&started, before.as_ref(), wanted.why, took);

        let proof = Box::new(Proof {
            name: self.name.clone(),
            old_generation: before.as_ref().map(|before| before.generation),
            new_generation: started.generation,
            version: started.version.clone(),
            hash: started.spec.hash.to_string(),
            took,
            in_flight_at_swap: in_flight,
            drained: None,
            failed: 0,
        });
        let asked = wanted.ask.map(|ask| (ask, proof));
        let mut actions = Vec::new();
        // Whoever was kept for the probation of the generation before goes now.
        if let Some(kept) = probation.and_then(|probation| probation.kept) {
            actions.extend(self.drain(kept.generation, workers.clone(), None));
        }
        // A generation that started in fresh workers has nobody beside it to go back to.
        let is_alone = workers.is_empty();
        let watches = self.watches && wanted.why != Why::Rollback && !is_alone;
        match before {
            Some(before) if watches => {
                let is_kept = !handed_over;
                let probation = Probation::new(before.clone(), is_kept, &workers);
                self.state = State::Probation(Box::new(probation));
                if is_kept {
                    actions.extend(answer(asked));
                } else {
                    actions.extend(self.drain(before.generation, workers, asked));
                }
            }
            Some(before) => actions.extend(self.drain(before.generation, workers, asked)),
            None => actions.extend(answer(asked)),
        }
        if let Some(next) = next {
            actions.extend(self.want(next));
        }
        actions
    }

    fn note_before(&mut self, before: Option<&Started>, now: &Started, why: Why) {
        let hash = now.spec.hash;
        self.aside
            .retain(|&aside, why| aside != hash && matches!(why, Aside::Crashed(_)));
        let Some(before) = before else { return };
        if why == Why::Rollback {
            let aside = Aside::RolledBack(Arc::clone(&before.spec));
            self.aside.insert(before.spec.hash, aside);
        }
        if before.spec.hash != now.spec.hash {
            self.previous = Some(before.clone());
        }
    }

    fn say_loaded(&self, now: &Started, before: Option<&Started>, why: Why, took: Took) {
        info!(
            plugin = self.name,
            version = now.version,
            generation = now.generation,
            replaces = before.map(|before| before.generation),
            hash = now.spec.hash.short(),
            mount = self.mounts.join(","),
            max_level = now.max_level,
            file = %self.library.display(),
            by_process = self.by_process,
            took = ?took.total(),
            "{}", if why == Why::Rollback { "Rolled back" } else { "Loaded" }
        );
    }
}
