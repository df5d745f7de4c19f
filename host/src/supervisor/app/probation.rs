//! The watch over a new generation: it stays, or the generation before serves again.

use std::{collections::BTreeSet, mem, time::SystemTime};

use tracing::{error, info};

use super::{Action, App, Aside, Source, State, Wanted, Why, WorkerId};
use crate::{
    orders::{Order, Started},
    supervisor::outcome::Failure,
};

/// The watch over the generation that serves.
#[derive(Debug)]
pub struct Probation {
    /// What served before.
    pub before: Started,
    /// The generation before when it still runs, so that it can take over again at once. None when
    /// it gave its state to the new one: then it has to be started again.
    pub kept: Option<Started>,
    /// The workers in which the watch goes on.
    watching: BTreeSet<WorkerId>,
    /// The failures and requests of the first worker in which the generation failed.
    failed: Option<(u64, u64)>,
}

impl Probation {
    /// A watch in these workers.
    pub(super) fn new(before: Started, is_kept: bool, workers: &BTreeSet<WorkerId>) -> Self {
        Self {
            kept: is_kept.then(|| before.clone()),
            before,
            watching: workers.clone(),
            failed: None,
        }
    }
}

impl App {
    /// The watch in a worker is over. `failed` is the failures and requests of a generation that
    /// failed.
    pub fn judged(
        &mut self,
        worker: WorkerId,
        generation: u64,
        failed: Option<(u64, u64)>,
    ) -> Vec<Action> {
        let serves = self.serving.as_ref();
        if serves.is_none_or(|serving| serving.generation != generation) {
            return Vec::new();
        }
        let probation = match &mut self.state {
            State::Probation(probation) => probation,
            State::Loading(loading) => match &mut loading.probation {
                Some(probation) => probation,
                None => return Vec::new(),
            },
            State::Resting => return Vec::new(),
        };
        probation.watching.remove(&worker);
        probation.failed = probation.failed.or(failed);
        self.settle()
    }

    /// A worker is gone: what it watched is watched in the others.
    pub fn watched_without(&mut self, worker: WorkerId) -> Vec<Action> {
        if let State::Probation(probation) = &mut self.state {
            probation.watching.remove(&worker);
        } else if let State::Loading(loading) = &mut self.state
            && let Some(probation) = &mut loading.probation
        {
            probation.watching.remove(&worker);
        }
        self.settle()
    }

    /// Probation → Resting when the watch is over, or Loading when the generation before has to be
    /// started again. While the next generation is on its way the decision waits: if that starts,
    /// there is nothing to decide.
    pub(super) fn settle(&mut self) -> Vec<Action> {
        let State::Probation(probation) = &self.state else {
            return Vec::new();
        };
        if probation.failed.is_none() && !probation.watching.is_empty() {
            return Vec::new();
        }
        let State::Probation(probation) = mem::replace(&mut self.state, State::Resting) else {
            return Vec::new();
        };
        match probation.failed {
            None => self.passed(&probation),
            Some(failed) => self.roll_back(*probation, failed),
        }
    }

    fn passed(&mut self, probation: &Probation) -> Vec<Action> {
        let Some(serving) = self.serving.clone() else {
            return Vec::new();
        };
        info!(
            plugin = self.name,
            generation = serving.generation,
            "Passed its probation"
        );
        self.good = Some(serving.clone());
        if probation.kept.is_none() {
            return Vec::new();
        }
        let order = Order::Settle {
            app: self.name.clone(),
            generation: serving.generation,
            back: false,
        };
        vec![Action::Send(None, order)]
    }

    fn roll_back(&mut self, probation: Probation, (failures, requests): (u64, u64)) -> Vec<Action> {
        let Some(bad) = self.serving.clone() else {
            return Vec::new();
        };
        let back = probation.kept.as_ref().map(|kept| kept.generation);
        error!(
            plugin = self.name,
            generation = bad.generation,
            hash = bad.spec.hash.short(),
            failures,
            requests,
            back,
            file = %self.library.display(),
            "Fails too often, rolling back; this library is not loaded again until it changes"
        );
        let error = format!("{failures} failures in {requests} requests, rolled back");
        self.last_error = Some(Failure {
            file: self.library.display().to_string(),
            hash: Some(bad.spec.hash.short()),
            step: "probation".to_owned(),
            error,
            at: SystemTime::now(),
        });
        let aside = Aside::RolledBack(bad.spec.clone());
        let Some(kept) = probation.kept else {
            let actions = self.want(Wanted {
                spec: probation.before.spec.clone(),
                source: Source::File(probation.before.copy),
                why: Why::Rollback,
                ask: None,
            });
            self.aside.insert(bad.spec.hash, aside);
            return actions;
        };
        self.aside.insert(bad.spec.hash, aside);
        self.mounts.clone_from(&kept.spec.mounts);
        self.serving = Some(kept);
        // What served before is what was rolled back from, so there is nothing left to go back to.
        self.previous = None;
        let order = Order::Settle {
            app: self.name.clone(),
            generation: bad.generation,
            back: true,
        };
        vec![Action::Send(None, order)]
    }
}
