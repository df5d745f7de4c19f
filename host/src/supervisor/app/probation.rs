//! The probation of a new generation. If the new generation fails too often, the generation before serves again.
//!
//! Each worker counts the failures of the new generation by itself and reports a verdict. The generation passes when
//! all workers report that it has passed. It fails as soon as one worker reports a failure. During the probation the
//! old generation keeps running without requests, so that it can serve again at once. An old generation that has
//! handed its state over cannot keep running. After a failure it is started again from its private copy.

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
    /// The generation before, if it still runs. `None` if that generation has handed its state over, so that it must
    /// be started again for a rollback.
    pub kept: Option<StagedGeneration>,
    /// The workers that have not reported a verdict.
    undecided: BTreeSet<WorkerId>,
    /// The numbers of failures and requests in the first worker that reported a failure.
    failure_counts: Option<(u64, u64)>,
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
            undecided: workers.clone(),
            failure_counts: None,
        }
    }
}

impl App {
    /// Handles the verdict of a worker. `failed` contains the numbers of failures and requests if the generation
    /// failed there, and is `None` if it passed.
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
            AppState::Idle => return Vec::new(),
        };
        probation.undecided.remove(&worker);
        probation.failure_counts = probation.failure_counts.or(failed);
        self.settle_probation()
    }

    /// Removes a worker that has exited from the probation. The other workers decide.
    pub fn remove_from_probation(&mut self, worker: WorkerId) -> Vec<AppAction> {
        if let AppState::Probation(probation) = &mut self.state {
            probation.undecided.remove(&worker);
        } else if let AppState::Loading(loading) = &mut self.state
            && let Some(probation) = &mut loading.probation
        {
            probation.undecided.remove(&worker);
        }
        self.settle_probation()
    }

    /// Probation → Idle when the verdict is known, or Probation → Loading if the generation before must be started
    /// again. Does nothing while another generation is being loaded: if that generation starts, it replaces both. If
    /// it fails, the probation is settled then.
    pub(super) fn settle_probation(&mut self) -> Vec<AppAction> {
        let AppState::Probation(probation) = &self.state else {
            return Vec::new();
        };
        if probation.failure_counts.is_none() && !probation.undecided.is_empty() {
            return Vec::new();
        }
        let AppState::Probation(probation) = mem::replace(&mut self.state, AppState::Idle) else {
            return Vec::new();
        };
        match probation.failure_counts {
            None => self.passed(&probation),
            Some(failed) => self.roll_back(*probation, failed),
        }
    }

    /// Ends a probation that the serving generation has passed. The workers end the generation that was kept.
    fn passed(&mut self, probation: &Probation) -> Vec<AppAction> {
        let Some(serving) = self.serving.clone() else {
            return Vec::new();
        };
        info!(
            plugin = self.name,
            generation = serving.generation,
            "Passed its probation"
        );
        self.last_good = Some(serving.clone());
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

    /// Puts the serving generation aside. The generation before serves again at once if it was kept, otherwise it is
    /// loaded again.
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
        // The previous generation serves again and the other one was put aside, so no target of a rollback remains.
        self.previous = None;
        let order = Order::Settle {
            app: self.name.clone(),
            generation: bad.generation,
            back: true,
        };
        vec![AppAction::Send(None, order)]
    }
}
