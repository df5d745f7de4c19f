//! Loading a generation: prepared, started in one worker after the other, then committed in all.
//!
//! The first worker verifies that the generation starts; the others follow. A failure in any worker
//! discards the generation in all of them. A worker that joins during a load gets the pending generation
//! too, and a worker that exits is taken out of the load. At most one load of an app is under way; the
//! latest request that comes meanwhile waits in [`PendingLoad::next`].

use std::{collections::BTreeSet, mem, sync::Arc};

use tracing::{debug, error};

use super::{
    App, AppAction, AppState, AsideReason, LoadPhase, LoadReason, LoadReport, LoadRequest,
    PendingLoad, Rollout, WorkerId, superseded,
};
use crate::{
    orders::{Order, StagedGeneration, Step, StepTimings},
    supervisor::{error::CommandError, outcome::LoadFailure},
};

impl App {
    /// Requests a load. Does nothing for a change in the folder whose result already serves, is being
    /// loaded, or was put aside.
    pub fn request_load(&mut self, request: LoadRequest) -> Vec<AppAction> {
        if request.reason == LoadReason::Changed && self.is_unneeded(&request) {
            return Vec::new();
        }
        match &mut self.state {
            AppState::Loading(loading) => {
                let is_under_way =
                    request.reason == LoadReason::Changed && loading.request.spec == request.spec;
                let next = (!is_under_way).then_some(request);
                let before = mem::replace(&mut loading.next, next);
                let reply_id = before.and_then(|before| before.reply_id);
                reply_id.map(superseded).into_iter().collect()
            }
            AppState::Probation(_) | AppState::Resting => self.begin(request),
        }
    }

    /// Returns whether a changed library needs no load, and logs why: the same spec serves already, or its
    /// content was put aside. A spec that was rolled back is loaded again when its settings changed.
    fn is_unneeded(&mut self, request: &LoadRequest) -> bool {
        if matches!(self.state, AppState::Loading(_)) {
            return false;
        }
        let serving = self.serving.as_ref();
        if serving.is_some_and(|serving| serving.spec == request.spec) {
            self.log_unchanged(request, "Unchanged, not loaded again");
            // The operator has restored the file, so an earlier failure is over.
            self.last_error = None;
            return true;
        }
        match self.aside.get(&request.spec.hash) {
            Some(AsideReason::RolledBack(spec))
                if *spec == request.spec
                    || serving.is_some_and(|serving| serving.spec.hash != spec.hash) =>
            {
                self.log_unchanged(
                    request,
                    "Unchanged since it was rolled back, not loaded again",
                );
                true
            }
            Some(AsideReason::Crashed(_)) => {
                self.log_unchanged(request, "Unchanged since it crashed, not loaded again");
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, request: LoadRequest) -> Vec<AppAction> {
        self.loads += 1;
        let generation = self.loads;
        debug!(
            plugin = self.name,
            generation,
            hash = request.spec.hash.short(),
            "Loading"
        );
        let prepare = AppAction::Prepare {
            generation,
            spec: Arc::clone(&request.spec),
            source: request.source.clone(),
        };
        let probation = match mem::replace(&mut self.state, AppState::Resting) {
            AppState::Probation(probation) => Some(*probation),
            AppState::Loading(_) | AppState::Resting => None,
        };
        self.state = AppState::Loading(Box::new(PendingLoad {
            generation,
            request,
            phase: LoadPhase::Preparing,
            next: None,
            probation,
        }));
        vec![prepare]
    }

    /// Preparing → Starting: the private copy is written. The generation starts in the first of `workers`,
    /// or in the next worker that becomes ready.
    ///
    /// Preparing → Replacing, for an app that is reloaded by process and already serves: old and new
    /// generation must not meet in one process. `are_processes` is false with `--workers=0`, where such an
    /// app is swapped like others.
    pub fn prepared(
        &mut self,
        staged: StagedGeneration,
        read: StepTimings,
        workers: &[WorkerId],
        are_processes: bool,
    ) -> Vec<AppAction> {
        let replaces = are_processes && self.by_process.is_some() && self.serving.is_some();
        let Some(loading) = self.loading_mut(staged.generation) else {
            return vec![AppAction::RemoveCopy(staged.copy)];
        };
        let rollout = Rollout {
            staged,
            step: Step::Open,
            starting: BTreeSet::new(),
            loaded: BTreeSet::new(),
            is_verified: false,
            timings: read,
            handed_over: false,
            hands_over: false,
        };
        if replaces {
            loading.phase = LoadPhase::Replacing(rollout);
            return vec![AppAction::Replace];
        }
        loading.phase = LoadPhase::Starting(rollout);
        let first = workers.first();
        first.map_or_else(Vec::new, |&first| self.start_in(first))
    }

    /// Starts the pending generation in a worker that does not have it yet. Only the first worker may
    /// start until the generation is verified.
    pub fn start_in(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let AppState::Loading(loading) = &mut self.state else {
            return Vec::new();
        };
        let LoadPhase::Starting(rollout) = &mut loading.phase else {
            return Vec::new();
        };
        let is_first = rollout.starting.is_empty() && rollout.loaded.is_empty();
        if !(is_first || rollout.is_verified) || rollout.loaded.contains(&worker) {
            return Vec::new();
        }
        rollout.starting.insert(worker);
        let order = Order::Load {
            staged: rollout.staged.clone(),
            serve: false,
            state: None,
        };
        vec![AppAction::Send(Some(worker), order)]
    }

    /// Records the current step of the load in the first worker.
    pub fn record_step(&mut self, generation: u64, step: Step) {
        if let Some(loading) = self.loading_mut(generation)
            && let LoadPhase::Starting(rollout) = &mut loading.phase
            && !rollout.is_verified
        {
            rollout.step = step;
        }
    }

    /// Handles [`Notice::Loaded`](crate::orders::Notice::Loaded). After the first worker the others start
    /// the generation; after the last one it is ready to be committed. A worker whose load is not pending
    /// any more is told to discard the generation.
    pub fn loaded(
        &mut self,
        worker: WorkerId,
        generation: u64,
        report: LoadReport,
        workers: &[WorkerId],
    ) -> Vec<AppAction> {
        let discard = Order::Discard {
            app: self.name.clone(),
            generation,
        };
        let Some(loading) = self.loading_mut(generation) else {
            return vec![AppAction::Send(Some(worker), discard)];
        };
        let LoadPhase::Starting(rollout) = &mut loading.phase else {
            return vec![AppAction::Send(Some(worker), discard)];
        };
        rollout.starting.remove(&worker);
        rollout.loaded.insert(worker);
        rollout.handed_over |= report.handed_over;
        rollout.hands_over = report.hands_over;
        if !rollout.is_verified {
            rollout.is_verified = true;
            rollout.timings = rollout.timings.and(report.timings);
        }
        let missing: Vec<_> = workers
            .iter()
            .copied()
            .filter(|other| !rollout.loaded.contains(other) && !rollout.starting.contains(other))
            .collect();
        let mut actions: Vec<_> = missing
            .into_iter()
            .flat_map(|worker| self.start_in(worker))
            .collect();
        actions.extend(self.commit_if_ready());
        actions
    }

    /// Returns whether the pending generation has started in all workers, so that it can be committed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let phase = self.loading().map(|loading| &loading.phase);
        matches!(phase, Some(LoadPhase::Starting(rollout)) if rollout.is_ready())
    }

    fn commit_if_ready(&self) -> Option<AppAction> {
        self.is_ready().then_some(AppAction::Commit)
    }

    /// Ends a load that failed: the serving generation goes on, and workers that have started the new one
    /// discard it. The previous probation and a waiting request go on.
    pub fn load_failed(&mut self, generation: u64, failure: LoadFailure) -> Vec<AppAction> {
        if self.loading_mut(generation).is_none() {
            return Vec::new();
        }
        let AppState::Loading(loading) = mem::replace(&mut self.state, AppState::Resting) else {
            return Vec::new();
        };
        let loading = *loading;
        let mut actions = Vec::new();
        if let Some(rollout) = loading.rollout() {
            let order = Order::Discard {
                app: self.name.clone(),
                generation,
            };
            let told = rollout.starting.iter().chain(&rollout.loaded);
            actions.extend(told.map(|&worker| AppAction::Send(Some(worker), order.clone())));
            if is_unopened(rollout) {
                actions.push(AppAction::RemoveCopy(rollout.staged.copy.clone()));
            }
        }
        self.failed.insert(loading.request.spec.hash);
        let error = failure.error.clone();
        self.report_failure(failure);
        if let Some(reply_id) = loading.request.reply_id {
            actions.push(AppAction::Answer(
                reply_id,
                Err(CommandError::Failed(error)),
            ));
        }
        if let Some(probation) = loading.probation {
            self.state = AppState::Probation(Box::new(probation));
            actions.extend(self.settle_probation());
        }
        if let Some(next) = loading.next {
            actions.extend(self.request_load(next));
        }
        actions
    }

    /// Logs why the app was not loaded, and keeps the reason for reports.
    pub fn report_failure(&mut self, failure: LoadFailure) {
        let serving = self.serving.as_ref().map(|serving| serving.generation);
        error!(
            plugin = self.name,
            file = failure.file,
            hash = failure.hash,
            step = failure.step,
            error = failure.error,
            serving,
            "{}",
            if serving.is_some() {
                "Not loaded, the generation before serves on"
            } else {
                "Not loaded"
            }
        );
        self.last_error = Some(failure);
    }

    /// Takes a worker that has exited out of the load. The load goes on in the other workers. When no
    /// worker is left that has started the generation, it has to be verified again in the next worker.
    pub(super) fn remove_from_load(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let AppState::Loading(loading) = &mut self.state else {
            return Vec::new();
        };
        match &mut loading.phase {
            LoadPhase::Preparing => Vec::new(),
            LoadPhase::Replacing(rollout) => {
                rollout.starting.remove(&worker);
                rollout.loaded.remove(&worker);
                Vec::new()
            }
            LoadPhase::Starting(rollout) => {
                rollout.starting.remove(&worker);
                rollout.loaded.remove(&worker);
                if rollout.loaded.is_empty() {
                    rollout.is_verified = false;
                }
                self.commit_if_ready().into_iter().collect()
            }
            LoadPhase::Committing {
                rollout, waiting, ..
            } => {
                // The old generation ended together with the worker, so nobody waits for a drain there.
                rollout.loaded.remove(&worker);
                waiting.remove(&worker);
                self.finish_if_all_swapped()
            }
        }
    }
}

fn is_unopened(rollout: &Rollout) -> bool {
    rollout.starting.is_empty() && rollout.loaded.is_empty()
}
