//! A generation on its way: prepared, started in one worker after the other, committed in all.

use std::{collections::BTreeSet, mem, sync::Arc};

use tracing::{debug, error};

use super::{
    Action, App, Aside, Loading, Phase, Report, Rollout, State, Wanted, Why, WorkerId, superseded,
};
use crate::{
    orders::{Order, Started, Step, Took},
    supervisor::{error::AskError, outcome::Failure},
};

impl App {
    /// A generation is wanted. Nothing happens when it is there already.
    pub fn want(&mut self, wanted: Wanted) -> Vec<Action> {
        if wanted.why == Why::Changed && self.is_there(&wanted) {
            return Vec::new();
        }
        match &mut self.state {
            State::Loading(loading) => {
                let is_under_way = wanted.why == Why::Changed && loading.wanted.spec == wanted.spec;
                let next = (!is_under_way).then_some(wanted);
                let before = mem::replace(&mut loading.next, next);
                let ask = before.and_then(|before| before.ask);
                ask.map(superseded).into_iter().collect()
            }
            State::Probation(_) | State::Resting => self.begin(wanted),
        }
    }

    /// Whether what is wanted serves already, or is not to be loaded again. It says so.
    fn is_there(&mut self, wanted: &Wanted) -> bool {
        if matches!(self.state, State::Loading(_)) {
            return false;
        }
        let serving = self.serving.as_ref();
        if serving.is_some_and(|serving| serving.spec == wanted.spec) {
            self.say_unchanged(wanted, "Unchanged, not loaded again");
            // What was wrong with the file has been put right.
            self.last_error = None;
            return true;
        }
        match self.aside.get(&wanted.spec.hash) {
            Some(Aside::RolledBack(spec))
                if *spec == wanted.spec
                    || serving.is_some_and(|serving| serving.spec.hash != spec.hash) =>
            {
                self.say_unchanged(
                    wanted,
                    "Unchanged since it was rolled back, not loaded again",
                );
                true
            }
            Some(Aside::Crashed(_)) => {
                self.say_unchanged(wanted, "Unchanged since it crashed, not loaded again");
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, wanted: Wanted) -> Vec<Action> {
        self.loads += 1;
        let generation = self.loads;
        debug!(
            plugin = self.name,
            generation,
            hash = wanted.spec.hash.short(),
            "Loading"
        );
        let prepare = Action::Prepare {
            generation,
            spec: Arc::clone(&wanted.spec),
            source: wanted.source.clone(),
        };
        let probation = match mem::replace(&mut self.state, State::Resting) {
            State::Probation(probation) => Some(*probation),
            State::Loading(_) | State::Resting => None,
        };
        self.state = State::Loading(Box::new(Loading {
            generation,
            wanted,
            phase: Phase::Preparing,
            next: None,
            probation,
        }));
        vec![prepare]
    }

    /// The private copy is written. The generation starts in the first of `workers`, or as soon as
    /// there is one; or in fresh workers, if there are processes and it must not meet the one before.
    pub fn prepared(
        &mut self,
        started: Started,
        read: Took,
        workers: &[WorkerId],
        are_processes: bool,
    ) -> Vec<Action> {
        let replaces = are_processes && self.by_process.is_some() && self.serving.is_some();
        let Some(loading) = self.loading_mut(started.generation) else {
            return vec![Action::RemoveCopy(started.copy)];
        };
        let rollout = Rollout {
            started,
            step: Step::Open,
            starting: BTreeSet::new(),
            loaded: BTreeSet::new(),
            is_proved: false,
            took: read,
            handed_over: false,
            hands_over: false,
        };
        if replaces {
            loading.phase = Phase::Replacing(rollout);
            return vec![Action::Replace];
        }
        loading.phase = Phase::Starting(rollout);
        let first = workers.first();
        first.map_or_else(Vec::new, |&first| self.start_in(first))
    }

    /// Starts what is on its way in a worker that does not have it yet.
    pub fn start_in(&mut self, worker: WorkerId) -> Vec<Action> {
        let State::Loading(loading) = &mut self.state else {
            return Vec::new();
        };
        let Phase::Starting(rollout) = &mut loading.phase else {
            return Vec::new();
        };
        let is_first = rollout.starting.is_empty() && rollout.loaded.is_empty();
        if !(is_first || rollout.is_proved) || rollout.loaded.contains(&worker) {
            return Vec::new();
        }
        rollout.starting.insert(worker);
        let order = Order::Load {
            started: rollout.started.clone(),
            serve: false,
            state: None,
        };
        vec![Action::Send(Some(worker), order)]
    }

    /// A load is at another step.
    pub fn at_step(&mut self, generation: u64, step: Step) {
        if let Some(loading) = self.loading_mut(generation)
            && let Phase::Starting(rollout) = &mut loading.phase
            && !rollout.is_proved
        {
            rollout.step = step;
        }
    }

    /// The generation has started in a worker. The others follow the first.
    pub fn loaded(
        &mut self,
        worker: WorkerId,
        generation: u64,
        report: Report,
        workers: &[WorkerId],
    ) -> Vec<Action> {
        let discard = Order::Discard {
            app: self.name.clone(),
            generation,
        };
        let Some(loading) = self.loading_mut(generation) else {
            return vec![Action::Send(Some(worker), discard)];
        };
        let Phase::Starting(rollout) = &mut loading.phase else {
            return vec![Action::Send(Some(worker), discard)];
        };
        rollout.starting.remove(&worker);
        rollout.loaded.insert(worker);
        rollout.handed_over |= report.handed_over;
        rollout.hands_over = report.hands_over;
        if !rollout.is_proved {
            rollout.is_proved = true;
            rollout.took = rollout.took.and(report.took);
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

    /// Whether the generation on its way has started in all workers, and may be committed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let phase = self.loading().map(|loading| &loading.phase);
        matches!(phase, Some(Phase::Starting(rollout)) if rollout.is_ready())
    }

    fn commit_if_ready(&self) -> Option<Action> {
        self.is_ready().then_some(Action::Commit)
    }

    /// The generation on its way did not start: what serves, serves on. Where it started it is
    /// discarded.
    pub fn load_failed(&mut self, generation: u64, failure: Failure) -> Vec<Action> {
        if self.loading_mut(generation).is_none() {
            return Vec::new();
        }
        let State::Loading(loading) = mem::replace(&mut self.state, State::Resting) else {
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
            actions.extend(told.map(|&worker| Action::Send(Some(worker), order.clone())));
            if told_nobody(rollout) {
                actions.push(Action::RemoveCopy(rollout.started.copy.clone()));
            }
        }
        self.failed.insert(loading.wanted.spec.hash);
        let error = failure.error.clone();
        self.say_failed(failure);
        if let Some(ask) = loading.wanted.ask {
            actions.push(Action::Answer(ask, Err(AskError::Failed(error))));
        }
        if let Some(probation) = loading.probation {
            self.state = State::Probation(Box::new(probation));
            actions.extend(self.settle());
        }
        if let Some(next) = loading.next {
            actions.extend(self.want(next));
        }
        actions
    }

    /// Says why the app was not loaded, and keeps it for reports.
    pub fn say_failed(&mut self, failure: Failure) {
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

    /// The worker is gone. What is on its way goes on in the others; without any, it starts again in
    /// the next one.
    pub(super) fn loading_without(&mut self, worker: WorkerId) -> Vec<Action> {
        let State::Loading(loading) = &mut self.state else {
            return Vec::new();
        };
        match &mut loading.phase {
            Phase::Preparing => Vec::new(),
            Phase::Replacing(rollout) => {
                rollout.starting.remove(&worker);
                rollout.loaded.remove(&worker);
                Vec::new()
            }
            Phase::Starting(rollout) => {
                rollout.starting.remove(&worker);
                rollout.loaded.remove(&worker);
                if rollout.loaded.is_empty() {
                    rollout.is_proved = false;
                }
                self.commit_if_ready().into_iter().collect()
            }
            Phase::Committing {
                rollout, waiting, ..
            } => {
                // Nothing of the generation before is in the worker either.
                rollout.loaded.remove(&worker);
                waiting.remove(&worker);
                self.finish_if_all_swapped()
            }
        }
    }
}

fn told_nobody(rollout: &Rollout) -> bool {
    rollout.starting.is_empty() && rollout.loaded.is_empty()
}
