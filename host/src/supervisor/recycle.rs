//! Recycling: a fresh worker takes the place of one that runs, and no request is lost.
//!
//! The new worker starts with everything that serves. When it accepts connections, the old one stops
//! to: it finishes what it has, tells its clients to go elsewhere, and ends. An app that hands its
//! state over serves in the new worker only when the old one has given the state; until then its
//! requests wait in the new worker. One worker is recycled at a time.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time};
use tracing::{info, warn};

use super::{
    Done, Supervisor,
    app::{Phase, WorkerId},
    report::Failure,
};
use crate::{
    config::Workers,
    orders::{Order, Started},
};

/// Why a worker is recycled, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An app is reloaded by process.
    App,
    /// It has run for as long as it may.
    Age,
    /// It cannot load many more libraries.
    Loads,
    /// It takes more memory than it may.
    Memory,
    /// An operator wants it.
    Operator,
    /// The host was upgraded.
    Upgrade,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::App => "an app is reloaded by process",
            Self::Age => "it has run for --worker-max-age",
            Self::Loads => "it can load few more libraries",
            Self::Memory => "it takes more than --worker-max-memory",
            Self::Operator => "an operator asks for it",
            Self::Upgrade => "the host was upgraded",
        }
    }
}

/// The workers that are to be replaced.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    /// Which are next, and why.
    queue: Vec<(WorkerId, Reason)>,
    /// The one that is being replaced.
    pub(super) current: Option<Current>,
    /// Who waits until all are replaced.
    replies: Vec<oneshot::Sender<Result<usize, String>>>,
    /// How many were replaced since the queue was last empty.
    done: usize,
    /// The states that fresh workers start apps with, until they have.
    states: BTreeMap<(WorkerId, String), Vec<u8>>,
}

impl Recycling {
    /// The state that a fresh worker starts the app with.
    pub(super) fn state(&self, worker: WorkerId, app: &str) -> Option<Vec<u8>> {
        self.states.get(&(worker, app.to_owned())).cloned()
    }

    /// The app has started in the worker.
    pub(super) fn forget_state(&mut self, worker: WorkerId, app: &str) {
        self.states.remove(&(worker, app.to_owned()));
    }
}

/// A worker that is being replaced.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) old: WorkerId,
    pub(super) new: WorkerId,
    /// What the new worker has to start with the state of the old one, by app.
    pub(super) wait_for_state: BTreeMap<String, Started>,
    began: Instant,
    reason: Reason,
}

/// When workers are recycled by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most memory of a worker, in bytes.
    memory: u64,
    /// The longest that a worker runs.
    age: Option<Duration>,
}

impl Limits {
    pub(super) fn of(config: &Workers) -> Self {
        Self {
            memory: config.worker_max_memory,
            age: config.worker_max_age,
        }
    }

    /// Whether a worker of this number has run for long enough. Workers that were started together
    /// differ by up to a tenth either way, so that they do not end together.
    fn is_old(self, worker: WorkerId, age: Duration) -> bool {
        // A number between 0.9 and 1.1 that the worker keeps.
        let jitter = 0.9 + (worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / 8e7;
        self.age.is_some_and(|limit| age >= limit.mul_f64(jitter))
    }
}

impl Supervisor {
    /// Looks from time to time whether workers are too old or too large.
    pub(super) fn check_later(&mut self) {
        if self.limits.age.is_none() && self.limits.memory == u64::MAX {
            return;
        }
        let workers = self.fleet.ages();
        self.tasks.spawn(async move {
            time::sleep(BETWEEN_CHECKS).await;
            let pids = workers.into_iter().map(|(worker, pid, _)| (worker, pid));
            let sizes = pids.map(|(worker, pid)| (worker, resident(pid)));
            Done::Checked(sizes.collect())
        });
    }

    pub(super) fn checked(&mut self, sizes: Vec<(WorkerId, Option<u64>)>) {
        for (worker, size) in sizes {
            if size.is_some_and(|size| size > self.limits.memory) {
                self.recycle(worker, Reason::Memory);
            }
        }
        for (worker, _, age) in self.fleet.ages() {
            if self.limits.is_old(worker, age) {
                self.recycle(worker, Reason::Age);
            }
        }
        self.recycle_next();
        self.check_later();
    }

    /// Recycles all workers, one after the other. The reply says how many were replaced.
    pub(super) fn recycle_all(
        &mut self,
        reason: Reason,
        reply: oneshot::Sender<Result<usize, String>>,
    ) {
        if self.workers.is_none() {
            // Who asked may be gone.
            let _ = reply.send(Err(
                "the host is one process (--workers=0), which has no workers to recycle".to_owned(),
            ));
            return;
        }
        self.recycling.replies.push(reply);
        for worker in self.fleet.taking_part() {
            self.recycle(worker, reason);
        }
        self.recycle_next();
    }

    /// Recycles a worker, when those before it are done.
    pub(super) fn recycle(&mut self, worker: WorkerId, reason: Reason) {
        let recycling = &mut self.recycling;
        let is_current = recycling
            .current
            .as_ref()
            .is_some_and(|current| current.old == worker);
        let is_queued = recycling.queue.iter().any(|&(queued, _)| queued == worker);
        if self.workers.is_some() && !is_current && !is_queued {
            recycling.queue.push((worker, reason));
        }
    }

    /// Starts the replacement of the next worker, unless one is being replaced or an app is being
    /// loaded.
    pub(super) fn recycle_next(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        while let Some((old, reason)) = self.recycling.queue.first().copied() {
            if self.fleet.is_there(old) && self.is_loading_in_workers() {
                // What is on its way goes on first: it may need the state of what serves.
                return;
            }
            self.recycling.queue.remove(0);
            if !self.fleet.is_there(old) {
                continue;
            }
            let Some(workers) = &self.workers else { return };
            let new = self.fleet.next_id();
            let link = workers.start(new);
            self.fleet.add(new, link);
            info!(
                worker = old,
                by = new,
                reason = reason.text(),
                "Recycling a worker"
            );
            self.recycling.current = Some(Current {
                old,
                new,
                wait_for_state: BTreeMap::new(),
                began: Instant::now(),
                reason,
            });
            return;
        }
        let done = std::mem::take(&mut self.recycling.done);
        for reply in self.recycling.replies.drain(..) {
            // Who asked may be gone.
            let _ = reply.send(Ok(done));
        }
    }

    /// Whether an app is between its first load in a worker and its commit.
    fn is_loading_in_workers(&self) -> bool {
        self.apps.values().any(|app| {
            let loading = app.loading();
            let phase = loading.map(|loading| &loading.phase);
            matches!(phase, Some(Phase::Starting(_) | Phase::Committing { .. }))
        })
    }

    /// Whether a worker takes over from another one that runs.
    pub(super) fn replaces(&self, worker: WorkerId) -> Option<WorkerId> {
        let current = self.recycling.current.as_ref()?;
        (current.new == worker).then_some(current.old)
    }

    /// A worker accepts connections: the one that it replaces stops to.
    pub(super) fn accepts(&mut self, worker: WorkerId) {
        let Some(current) = &self.recycling.current else {
            return;
        };
        if current.new == worker {
            let give = current.wait_for_state.keys().cloned().collect();
            let patience = self.graceful_timeout;
            self.fleet.leave(current.old, patience, give);
        }
    }

    /// The old worker has given the state of an app, or could not: the new one starts the app with it,
    /// or without.
    pub(super) fn state_given(
        &mut self,
        worker: WorkerId,
        app: &str,
        state: Result<Vec<u8>, String>,
    ) {
        let Some(current) = &mut self.recycling.current else {
            return;
        };
        if current.old != worker {
            return;
        }
        let Some(started) = current.wait_for_state.remove(app) else {
            return;
        };
        let state = match state {
            Ok(state) => {
                let key = (current.new, app.to_owned());
                self.recycling.states.insert(key, state.clone());
                Some(state)
            }
            Err(error) => {
                warn!(
                    plugin = app,
                    generation = started.generation,
                    error,
                    "The state was not handed over to the new worker, and is lost"
                );
                None
            }
        };
        let new = current.new;
        self.fleet.send(
            new,
            Order::Load {
                started,
                serve: true,
                state,
            },
        );
    }

    /// Replaces all workers by fresh ones that start what is on its way.
    pub(super) fn replace_workers(&mut self) {
        for worker in self.fleet.taking_part() {
            self.recycle(worker, Reason::App);
        }
        self.recycle_next();
    }

    /// A fresh worker could not start the generation that is to replace what serves. What serves,
    /// serves on: the fresh worker ends, or has it instead when the old one has given its state.
    pub(super) fn replacement_failed(
        &mut self,
        worker: WorkerId,
        name: &str,
        generation: u64,
        failure: Failure,
    ) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let serving = app.serving.clone();
        let have_it = app.loading().and_then(|loading| loading.rollout());
        let have_it = have_it
            .map(|rollout| rollout.loaded.clone())
            .unwrap_or_default();
        let actions = app.load_failed(generation, failure);
        self.recycling
            .queue
            .retain(|&(_, reason)| reason != Reason::App);
        let state = self.recycling.state(worker, name);
        match (state, serving) {
            (Some(state), Some(started)) => self.fleet.send(
                worker,
                Order::Load {
                    started,
                    serve: true,
                    state: Some(state),
                },
            ),
            _ => self.fleet.end(worker),
        }
        for other in have_it {
            self.recycle(other, Reason::App);
        }
        self.apply(name, actions);
    }

    /// The apps that are reloaded by process and that all workers have serve from now on.
    pub(super) fn finish_replacements(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        let workers = self.fleet.taking_part();
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            let Some(app) = self.apps.get_mut(&name) else {
                continue;
            };
            match app.not_replaced(&workers) {
                Some(left) if left.is_empty() => {
                    let actions = app.replaced();
                    self.apply(&name, actions);
                    self.libraries.touch();
                }
                Some(left) => {
                    for worker in left {
                        self.recycle(worker, Reason::App);
                    }
                }
                None => {}
            }
        }
        self.recycle_next();
    }

    /// A worker has ended: the one that was replaced, or one of the two by an accident.
    pub(super) fn recycled(&mut self, worker: WorkerId) {
        self.recycling
            .states
            .retain(|(fresh, _), _| *fresh != worker);
        self.recycling.queue.retain(|&(queued, _)| queued != worker);
        let Some(current) = self.recycling.current.take() else {
            return self.recycle_next();
        };
        if worker == current.old {
            // What the old worker did not give any more starts without.
            for started in current.wait_for_state.into_values() {
                self.fleet.send(
                    current.new,
                    Order::Load {
                        started,
                        serve: true,
                        state: None,
                    },
                );
            }
            self.recycling.done += 1;
            info!(
                worker = current.old,
                by = current.new,
                reason = current.reason.text(),
                took = ?current.began.elapsed(),
                "Recycled"
            );
        } else if worker == current.new {
            warn!(
                worker = current.old,
                by = current.new,
                "Not recycled, as the new worker ended; the old one serves on"
            );
        } else {
            self.recycling.current = Some(current);
            return;
        }
        self.finish_replacements();
        self.recycle_next();
    }
}

/// How much memory a process has that no file backs, in bytes (proc_pid_status(5), `RssAnon`): the
/// private copies of libraries are files, which the system can read again.
fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// How often workers are looked at.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_started_together_do_not_end_together() {
        let limits = Limits {
            memory: u64::MAX,
            age: Some(Duration::from_secs(1000)),
        };
        let is_old = |worker, seconds| limits.is_old(worker, Duration::from_secs(seconds));
        let at_limit = (1..=100).filter(|&worker| is_old(worker, 1000)).count();
        assert!((20..=80).contains(&at_limit), "{at_limit}");
        assert!((1..=100).all(|worker| !is_old(worker, 899) && is_old(worker, 1111)));
    }
}
