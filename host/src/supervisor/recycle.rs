//! Recycling: replaces a running worker by a fresh one without losing a request.
//!
//! The new worker first loads everything that serves. When it accepts connections, the old worker stops
//! accepting, finishes its requests, asks its clients to reconnect, and exits. An app that hands its state
//! over starts in the new worker only when the old worker has given the state; until then requests to
//! that app wait in the new worker. One worker is recycled at a time, so that at most one worker more than
//! usual runs.

use std::{collections::BTreeMap, time::Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    Supervisor,
    app::{LoadPhase, WorkerId},
};
use crate::orders::{Order, StagedGeneration};

/// Why a worker is recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecycleReason {
    /// An app is reloaded by process.
    App,
    /// The worker has reached `--worker-max-age`.
    Age,
    /// The replaced libraries of the worker exceed `--worker-max-copies`, or the free disk space.
    Disk,
    /// The worker can load few more libraries.
    Loads,
    /// The worker exceeds `--worker-max-memory`.
    Memory,
    /// An operator asked for it.
    Operator,
    /// The host was upgraded.
    Upgrade,
}

impl RecycleReason {
    fn text(self) -> &'static str {
        match self {
            Self::App => "an app is reloaded by process",
            Self::Age => "it has run for --worker-max-age",
            Self::Disk => {
                "the copies of its replaced libraries take too much of the disk (--worker-max-copies)"
            }
            Self::Loads => "it can load few more libraries",
            Self::Memory => "it takes more than --worker-max-memory",
            Self::Operator => "an operator asks for it",
            Self::Upgrade => "the host was upgraded",
        }
    }
}

/// The workers to be replaced, and the replacement under way.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    /// The workers to be replaced next, and why.
    pub(super) queue: Vec<(WorkerId, RecycleReason)>,
    /// The replacement under way.
    pub(super) current: Option<Current>,
    /// Operators who wait until the queue is empty.
    replies: Vec<oneshot::Sender<Result<usize, String>>>,
    /// The number of workers that were replaced since the queue was last empty.
    done: usize,
    /// States that were given to a new worker whose app has not started yet. A load that fails and is
    /// repeated needs the state again, and the old worker has closed the app already.
    states: BTreeMap<(WorkerId, String), Vec<u8>>,
}

impl Recycling {
    /// Returns the state that the app must start with in a new worker.
    pub(super) fn state(&self, worker: WorkerId, app: &str) -> Option<Vec<u8>> {
        self.states.get(&(worker, app.to_owned())).cloned()
    }

    /// Drops the state after the app has started in the worker.
    pub(super) fn forget_state(&mut self, worker: WorkerId, app: &str) {
        self.states.remove(&(worker, app.to_owned()));
    }
}

/// A replacement under way.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) old: WorkerId,
    pub(super) new: WorkerId,
    /// The generations, by app, that the new worker starts only with the state from the old one.
    pub(super) wait_for_state: BTreeMap<String, StagedGeneration>,
    began: Instant,
    reason: RecycleReason,
}

impl Supervisor {
    /// Handles the command of an operator to recycle one worker or all. The reply is the number of replaced
    /// workers, or why none can be replaced.
    pub(super) fn ask_recycle(
        &mut self,
        only: Option<WorkerId>,
        reply: oneshot::Sender<Result<usize, String>>,
    ) {
        let there = self.fleet.ready_workers();
        let refusal = match only {
            _ if self.spawner.is_none() => {
                "the host is one process (--workers=0), which has no workers to recycle".to_owned()
            }
            None => return self.recycle_these(there, RecycleReason::Operator, reply),
            Some(only) if there.contains(&only) => {
                return self.recycle_these(vec![only], RecycleReason::Operator, reply);
            }
            Some(only) => {
                let there: Vec<_> = there.iter().map(ToString::to_string).collect();
                let there = there.join(", ");
                format!("there is no worker {only} that serves, expected one of: {there}")
            }
        };
        // The requester may have disconnected.
        let _ = reply.send(Err(refusal));
    }

    /// Queues workers for recycling. The reply is sent when the queue is empty.
    pub(super) fn recycle_these(
        &mut self,
        workers: Vec<WorkerId>,
        reason: RecycleReason,
        reply: oneshot::Sender<Result<usize, String>>,
    ) {
        self.recycling.replies.push(reply);
        for worker in workers {
            self.recycle(worker, reason);
        }
        self.recycle_next();
    }

    /// Queues a worker for recycling, unless it is queued or being replaced already.
    pub(super) fn recycle(&mut self, worker: WorkerId, reason: RecycleReason) {
        let recycling = &mut self.recycling;
        let is_current = recycling
            .current
            .as_ref()
            .is_some_and(|current| current.old == worker);
        let is_queued = recycling.queue.iter().any(|&(queued, _)| queued == worker);
        if self.spawner.is_some() && !is_current && !is_queued {
            recycling.queue.push((worker, reason));
        }
    }

    /// Starts the next replacement, unless one is under way. While an app is being loaded in the workers the
    /// queue waits: the load may need the state of the running generation, which a recycling moves away.
    pub(super) fn recycle_next(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        while let Some((old, reason)) = self.recycling.queue.first().copied() {
            if self.fleet.is_staying(old) && self.is_loading_in_workers() {
                // The load goes first, because it may need the state of the running generation.
                return;
            }
            self.recycling.queue.remove(0);
            if !self.fleet.is_staying(old) {
                continue;
            }
            let Some(workers) = &self.spawner else { return };
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
            // The requester may have disconnected.
            let _ = reply.send(Ok(done));
        }
    }

    /// Returns whether any app is between its first load in a worker and the end of its commit.
    fn is_loading_in_workers(&self) -> bool {
        self.apps.values().any(|app| {
            let loading = app.loading();
            let phase = loading.map(|loading| &loading.phase);
            matches!(
                phase,
                Some(LoadPhase::Starting(_) | LoadPhase::Committing { .. })
            )
        })
    }

    /// Returns the worker that this new worker replaces.
    pub(super) fn replaces(&self, worker: WorkerId) -> Option<WorkerId> {
        let current = self.recycling.current.as_ref()?;
        (current.new == worker).then_some(current.old)
    }

    /// Handles a worker that begins to accept connections: the worker that it replaces is told to stop.
    pub(super) fn accepts(&mut self, worker: WorkerId) {
        let Some(current) = &self.recycling.current else {
            return;
        };
        if current.new == worker {
            let give = current.wait_for_state.keys().cloned().collect();
            let timeout = self.graceful_timeout;
            self.fleet.stop_replaced(current.old, timeout, give);
        }
    }

    /// Handles the state of an app from the old worker: the new worker loads the app with it. If the old
    /// worker could not give the state, the app starts without.
    pub(super) fn state_received(
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
        let Some(staged) = current.wait_for_state.remove(app) else {
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
                    generation = staged.generation,
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
                staged,
                serve: true,
                state,
            },
        );
    }

    /// Handles the exit of any worker. If the old worker of a replacement exited, the replacement is done,
    /// and apps whose state never came start without it. If the new worker exited, the old one goes on.
    pub(super) fn recycled(&mut self, worker: WorkerId) {
        self.recycling
            .states
            .retain(|(fresh, _), _| *fresh != worker);
        self.recycling.queue.retain(|&(queued, _)| queued != worker);
        let Some(current) = self.recycling.current.take() else {
            return self.recycle_next();
        };
        if worker == current.old {
            // Apps whose state the old worker did not give start without it.
            for staged in current.wait_for_state.into_values() {
                self.fleet.send(
                    current.new,
                    Order::Load {
                        staged,
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
