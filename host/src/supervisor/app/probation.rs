//! The probation of a new generation: it stays, or the generation before serves again.
//!
//! Each worker measures the failures of the new generation by itself and reports a verdict. The first
//! worker in which it fails decides against it; it passes when it passed in all workers. While the
//! probation goes on, the old generation is kept running without requests, so that it can take over at
//! once. An old generation that has handed its state over cannot be kept: it is started again.

use std::{collections::BTreeSet, mem, time::SystemTime};

use tracing::{error, info};

use super::{
    App, AppAction, AppState, AsideReason, LibrarySource, LoadReason, LoadRequest, WorkerId,
};
use crate::{
    orders::{Order, StagedGeneration},
    supervisor::outcome::LoadFailure,
};

/// The probation of the serving generation.
#[derive(Debug)]
pub struct Probation {
    /// The generation that served before.
    pub before: StagedGeneration,
    /// The generation before, if it still runs and can take over at once. `None` when it has handed its
    /// state over: then it has to be started again.
    pub kept: Option<StagedGeneration>,
    /// The workers that have not reported a verdict.
    watching: BTreeSet<WorkerId>,
    /// The failures and requests in the first worker where the generation failed.
    failed: Option<(u64, u64)>,
}

impl Probation {
    /// Begins a probation in these workers.
    pub(super) fn new(
        before: StagedGeneration,
        is_kept: bool,
        workers: &BTreeSet<WorkerId>,
    ) -> Self {
        Self {
            kept: is_kept.then(|| before.clone()),
            before,
            watching: workers.clone(),
            failed: None,
        }
    }
}

impl App {
    /// Handles the verdict of a worker. `failed` has the failures and requests if the generation failed.
    pub fn probation_ended(
        &mut self,
        worker: WorkerId,
        generation: u64,
        failed: Option<(u64, u64)>,
    ) -> Vec<AppAction> {
        let serves = self.serving.as_ref();
        if serves.is_none_or(|serving| serving.generation != generation) {
            return Vec::new();
        }
        let probation = match &mut self.state {
            AppState::Probation(probation) => probation,
            AppState::Loading(loading) => match &mut loading.probation {
                Some(probation) => probation,
                None => return Vec::new(),
            },
            AppState::Resting => return Vec::new(),
        };
        probation.watching.remove(&worker);
        probation.failed = probation.failed.or(failed);
        self.settle_probation()
    }

    /// Takes a worker that has exited out of the probation. The other workers decide.
    pub fn remove_from_probation(&mut self, worker: WorkerId) -> Vec<AppAction> {
        if let AppState::Probation(probation) = &mut self.state {
            probation.watching.remove(&worker);
        } else if let AppState::Loading(loading) = &mut self.state
            && let Some(probation) = &mut loading.probation
        {
            probation.watching.remove(&worker);
        }
        self.settle_probation()
    }

    /// Probation → Resting when the verdict is known, or → Loading when the generation before has to be
    /// started again. The decision waits while a next generation is being loaded: if that one starts, it
    /// replaces both.
    pub(super) fn settle_probation(&mut self) -> Vec<AppAction> {
        let AppState::Probation(probation) = &self.state else {
            return Vec::new();
        };
        if probation.failed.is_none() && !probation.watching.is_empty() {
            return Vec::new();
        }
        let AppState::Probation(probation) = mem::replace(&mut self.state, AppState::Resting)
        else {
            return Vec::new();
        };
        match probation.failed {
            None => self.passed(&probation),
            Some(failed) => self.roll_back(*probation, failed),
        }
    }

    fn passed(&mut self, probation: &Probation) -> Vec<AppAction> {
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
        vec![AppAction::Send(None, order)]
    }

    fn roll_back(
        &mut self,
        probation: Probation,
        (failures, requests): (u64, u64),
    ) -> Vec<AppAction> {
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
        self.last_error = Some(LoadFailure {
            file: self.library.display().to_string(),
            hash: Some(bad.spec.hash.short()),
            step: "probation".to_owned(),
            error,
            at: SystemTime::now(),
        });
        let aside = AsideReason::RolledBack(bad.spec.clone());
        let Some(kept) = probation.kept else {
            let actions = self.request_load(LoadRequest {
                spec: probation.before.spec.clone(),
                source: LibrarySource::File(probation.before.copy),
                reason: LoadReason::Rollback,
                reply_id: None,
            });
            self.aside.insert(bad.spec.hash, aside);
            return actions;
        };
        self.aside.insert(bad.spec.hash, aside);
        self.mounts.clone_from(&kept.spec.mounts);
        self.serving = Some(kept);
        // The generation that was previous serves again, and the other one is bad: no rollback is left.
        self.previous = None;
        let order = Order::Settle {
            app: self.name.clone(),
            generation: bad.generation,
            back: true,
        };
        vec![AppAction::Send(None, order)]
    }
}
