//! The commit: a generation that has started in all workers begins to serve.
//!
//! Every worker has started the generation before any worker gets the order to commit. So a load that fails in one
//! worker changes nothing for clients. The commit itself cannot fail: a worker that does not answer the order has
//! crashed, and the worker that replaces it starts with the new generation.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use tracing::info;

use super::{
    App, AppAction, AppState, AsideReason, LoadPhase, LoadReason, PendingLoad, Probation, ReplyId,
    Rollout, WorkerId, answer,
};
use crate::{
    orders::{Commit, StagedGeneration, StepTimings},
    supervisor::outcome::ReloadReport,
};

impl App {
    /// Starting → Committing. Returns the commit for the workers, or `None` if the generation has not started in all
    /// workers. The supervisor sends the commits of several apps in one order, so that two apps can exchange their
    /// mounts.
    pub fn commit(&mut self) -> Option<Commit> {
        let uses_probation = self.uses_probation && self.serving.is_some();
        if !self.is_ready() {
            return None;
        }
        let AppState::Loading(loading) = &mut self.state else {
            return None;
        };
        // `Preparing` is only a placeholder, so that the rollout can be moved. The phase is set below.
        let LoadPhase::Starting(rollout) = mem::replace(&mut loading.phase, LoadPhase::Preparing)
        else {
            return None;
        };
        // Only results that arrive during this commit belong to it.
        self.ended_early.clear();
        // A rollback begins no probation, because the version that serves now is about to be put aside.
        let commit = Commit {
            app: rollout.staged.app.clone(),
            generation: loading.generation,
            watch: uses_probation && loading.request.reason != LoadReason::Rollback,
        };
        loading.phase = LoadPhase::Committing {
            waiting: rollout.loaded.clone(),
            rollout,
            in_flight: 0,
            swap: Duration::ZERO,
        };
        Some(commit)
    }

    /// Handles [`Notice::Swapped`](crate::orders::Notice::Swapped). `in_flight_before` is the number of requests in
    /// the old generation of that worker. When all workers have swapped, the new generation is the serving one.
    pub fn swapped(
        &mut self,
        worker: WorkerId,
        generation: u64,
        took: Duration,
        in_flight_before: u64,
    ) -> Vec<AppAction> {
        let Some(loading) = self.loading_mut(generation) else {
            return Vec::new();
        };
        let LoadPhase::Committing {
            waiting,
            in_flight,
            swap,
            ..
        } = &mut loading.phase
        else {
            return Vec::new();
        };
        waiting.remove(&worker);
        *in_flight += in_flight_before;
        *swap = took.max(*swap);
        self.finish_if_all_swapped()
    }

    /// Completes the commit if no worker has to swap any more.
    pub(super) fn finish_if_all_swapped(&mut self) -> Vec<AppAction> {
        // The load is moved out of the state, because `finish` consumes the load and may begin the next one.
        match mem::replace(&mut self.state, AppState::Idle) {
            AppState::Loading(loading) if matches!(&loading.phase, LoadPhase::Committing { waiting, .. } if waiting.is_empty()) => {
                self.finish(*loading)
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Committing → Probation or Idle: records the new generation as serving, and lets the old one drain.
    ///
    /// If a probation begins and the old generation has not handed its state over, the old generation does not drain
    /// but keeps running. A request for another load that arrived in the meantime begins last.
    pub(super) fn finish(&mut self, loading: PendingLoad) -> Vec<AppAction> {
        let PendingLoad {
            request,
            phase,
            next,
            probation,
            ..
        } = loading;
        let LoadPhase::Committing {
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
            staged,
            mut timings,
            loaded: workers,
            handed_over,
            ..
        } = rollout;
        timings.swap = swap;
        let before = self.serving.replace(staged.clone());
        self.mounts.clone_from(&staged.spec.mounts);
        self.timings = Some(timings);
        self.last_error = None;
        self.failed.clear();
        self.remember_previous(before.as_ref(), &staged, request.reason);
        self.log_loaded(&staged, before.as_ref(), request.reason, timings);

        let report = Box::new(ReloadReport {
            name: self.name.clone(),
            old_generation: before.as_ref().map(|before| before.generation),
            new_generation: staged.generation,
            version: staged.version,
            hash: staged.spec.hash.to_string(),
            timings,
            in_flight_at_swap: in_flight,
            drained: None,
            failed: 0,
        });
        let reply = request.reply_id.map(|reply_id| (reply_id, report));
        let mut actions = Vec::new();
        // A generation that was kept for the previous probation is not needed any more.
        if let Some(kept) = probation.and_then(|probation| probation.kept) {
            actions.extend(self.drain(kept.generation, workers.clone(), None));
        }
        let can_watch = request.reason != LoadReason::Rollback;
        actions.extend(self.end_generation_before(before, handed_over, can_watch, workers, reply));
        // Last, because the next load needs the state in which this load ends.
        if let Some(next) = next {
            actions.extend(self.request_load(next));
        }
        actions
    }

    /// Begins the probation of the new generation, or lets the generation before drain. During a probation the
    /// generation before keeps running, unless it has handed its state over. The reply is sent at once if the
    /// generation before keeps running, otherwise when that generation has drained.
    fn end_generation_before(
        &mut self,
        before: Option<StagedGeneration>,
        handed_over: bool,
        can_watch: bool,
        workers: BTreeSet<WorkerId>,
        reply: Option<(ReplyId, Box<ReloadReport>)>,
    ) -> Vec<AppAction> {
        let Some(before) = before else {
            return answer(reply).into_iter().collect();
        };
        // After a reload by process no worker has the old generation, so a probation could not go back.
        if !self.uses_probation || !can_watch || workers.is_empty() {
            return self.drain(before.generation, workers, reply);
        }
        let is_kept = !handed_over;
        let probation = Probation::new(before.clone(), is_kept, &workers);
        self.state = AppState::Probation(Box::new(probation));
        if is_kept {
            answer(reply).into_iter().collect()
        } else {
            self.drain(before.generation, workers, reply)
        }
    }

    /// Updates the target of a rollback and the contents that were put aside. A successful load clears the contents
    /// that were rolled back earlier. If the load is itself a rollback, the content that served before is put aside.
    fn remember_previous(
        &mut self,
        before: Option<&StagedGeneration>,
        now: &StagedGeneration,
        reason: LoadReason,
    ) {
        let hash = now.spec.hash;
        // The content that serves now is no longer put aside either, even if it crashed before.
        self.aside
            .retain(|&aside, reason| aside != hash && matches!(reason, AsideReason::Crashed(_)));
        let Some(before) = before else { return };
        if reason == LoadReason::Rollback {
            let aside = AsideReason::RolledBack(Arc::clone(&before.spec));
            self.aside.insert(before.spec.hash, aside);
        }
        if before.spec.hash != now.spec.hash {
            self.previous = Some(before.clone());
        }
    }

    /// Logs that the generation `now` serves instead of `before`.
    fn log_loaded(
        &self,
        now: &StagedGeneration,
        before: Option<&StagedGeneration>,
        reason: LoadReason,
        timings: StepTimings,
    ) {
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
            took = ?timings.total(),
            "{}", if reason == LoadReason::Rollback { "Rolled back" } else { "Loaded" }
        );
    }
}
