//! The load of a generation: the generation is prepared, starts in one worker and then in the others, and is
//! committed in all workers.
//!
//! The first worker verifies that the generation starts. A failure in any worker discards the generation in all
//! workers. A worker that becomes ready during a load gets the pending generation too. A worker that exits is removed
//! from the load. At most one load of an app is under way. The latest request that arrives during a load waits in
//! [`PendingLoad::next`].

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
    /// Requests a load. Begins the load at once, or queues the request if another load is under way. A changed
    /// library is not loaded if the same spec already serves or is being loaded, or if its content was put aside.
    pub fn request_load(&mut self, request: LoadRequest) -> Vec<AppAction> {
        if request.reason == LoadReason::Changed && self.is_unneeded(&request) {
            return Vec::new();
        }
        match &mut self.state {
            AppState::Loading(loading) => {
                let is_under_way =
                    request.reason == LoadReason::Changed && loading.request.spec == request.spec;
                let next = (!is_under_way).then_some(request);
                // The new request replaces a queued one. If the library is back at the content that is being loaded,
                // nothing is queued any more.
                let outdated = mem::replace(&mut loading.next, next);
                let reply_id = outdated.and_then(|outdated| outdated.reply_id);
                reply_id.map(superseded).into_iter().collect()
            }
            AppState::Probation(_) | AppState::Idle => self.begin_load(request),
        }
    }

    /// Returns whether a changed library needs no load, and logs the reason: the same spec already serves, or the
    /// content was put aside.
    fn is_unneeded(&mut self, request: &LoadRequest) -> bool {
        if matches!(self.state, AppState::Loading(_)) {
            return false;
        }
        let serving = self.serving.as_ref();
        if serving.is_some_and(|serving| serving.spec == request.spec) {
            self.log_unchanged(request, "Unchanged, not loaded again");
            // The file has the serving content again, so the failure of another content is no longer current.
            self.last_error = None;
            return true;
        }
        match self.aside.get(&request.spec.hash) {
            // With other settings, the content is blocked as well. The exception is a serving generation with the same
            // content: then only the settings were rolled back, and other settings may be better.
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

    /// Idle or Probation → Preparing. A probation continues during the load.
    fn begin_load(&mut self, request: LoadRequest) -> Vec<AppAction> {
        // The number is used up even if the load fails, because events name the generation by this number.
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
        let probation = match mem::replace(&mut self.state, AppState::Idle) {
            AppState::Probation(probation) => Some(*probation),
            AppState::Loading(_) | AppState::Idle => None,
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

    /// Preparing → Starting, after the private copy was written. The generation starts in the first of `workers`, or
    /// in the next worker that becomes ready.
    ///
    /// Preparing → Replacing, if the app is reloaded by process and already serves, because the old and the new
    /// generation must not be in the same process. With `--workers=0`, `has_worker_processes` is false, and the app is
    /// swapped like any other app.
    pub fn prepared(
        &mut self,
        staged: StagedGeneration,
        timings: StepTimings,
        workers: &[WorkerId],
        has_worker_processes: bool,
    ) -> Vec<AppAction> {
        let needs_fresh_workers =
            has_worker_processes && self.by_process.is_some() && self.serving.is_some();
        let Some(loading) = self.loading_mut(staged.generation) else {
            // The load has ended during the preparation, so no worker will open the copy.
            return vec![AppAction::RemoveCopy(staged.copy)];
        };
        let rollout = Rollout {
            staged,
            step: Step::Open,
            starting: BTreeSet::new(),
            loaded: BTreeSet::new(),
            is_verified: false,
            timings,
            handed_over: false,
            hands_over: false,
        };
        if needs_fresh_workers {
            loading.phase = LoadPhase::Replacing(rollout);
            return vec![AppAction::Replace];
        }
        loading.phase = LoadPhase::Starting(rollout);
        let first = workers.first();
        first.map_or_else(Vec::new, |&first| self.start_in(first))
    }

    /// Returns the order that starts the pending generation in a worker. Returns no action if the worker has the
    /// generation already, or if the first worker has not verified the generation yet.
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

    /// Handles [`Notice::Loaded`](crate::orders::Notice::Loaded). After the first worker has started the generation,
    /// the others start it. After the last worker has started it, the generation is ready for the commit. If the load
    /// was discarded in the meantime, the worker is told to discard the generation too.
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
        // `workers` is the current list. A worker that has become ready after the load began is included.
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

    /// Returns the commit if the pending generation has started in all workers.
    fn commit_if_ready(&self) -> Option<AppAction> {
        self.is_ready().then_some(AppAction::Commit)
    }

    /// Ends a load that failed. The serving generation continues to serve, and the workers discard the new generation.
    /// A probation of the serving generation continues, and a queued request begins.
    pub fn load_failed(&mut self, generation: u64, failure: LoadFailure) -> Vec<AppAction> {
        if self.loading_mut(generation).is_none() {
            return Vec::new();
        }
        let AppState::Loading(loading) = mem::replace(&mut self.state, AppState::Idle) else {
            return Vec::new();
        };
        let loading = *loading;
        let mut actions = Vec::new();
        if let Some(rollout) = loading.rollout() {
            let order = Order::Discard {
                app: self.name.clone(),
                generation,
            };
            let workers = rollout.starting.iter().chain(&rollout.loaded);
            actions.extend(workers.map(|&worker| AppAction::Send(Some(worker), order.clone())));
            // A copy that a worker has opened is removed by the fleet, after that worker has exited.
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
            // The verdict may have arrived during the load.
            actions.extend(self.settle_probation());
        }
        if let Some(next) = loading.next {
            actions.extend(self.request_load(next));
        }
        actions
    }

    /// Logs why the app was not loaded, and stores the reason for reports.
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
                "Not loaded, the old generation continues to serve"
            } else {
                "Not loaded"
            }
        );
        self.last_error = Some(failure);
    }

    /// Removes a worker that has exited from the load. The load continues in the other workers. If no worker remains
    /// that has started the generation, the next worker must verify the generation again.
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
                // The commit may have waited for this worker only.
                self.commit_if_ready().into_iter().collect()
            }
            LoadPhase::Committing {
                rollout, waiting, ..
            } => {
                // The old generation ended together with the worker, so no drain of that worker follows.
                rollout.loaded.remove(&worker);
                waiting.remove(&worker);
                self.finish_if_all_swapped()
            }
        }
    }
}

/// Returns whether no worker has opened the private copy.
fn is_unopened(rollout: &Rollout) -> bool {
    rollout.starting.is_empty() && rollout.loaded.is_empty()
}
