//! Recycling: a fresh worker takes the place of one that runs, and no request is lost.
//!
//! The new worker starts with everything that serves. When it accepts connections, the old one stops
//! to: it finishes what it has, tells its clients to go elsewhere, and ends. An app that hands its
//! state over serves in the new worker only when the old one has given the state; until then its
//! requests wait in the new worker. One worker is recycled at a time.

use std::{collections::BTreeMap, time::Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    Supervisor,
    app::{LoadPhase, WorkerId},
};
use crate::orders::{Order, StagedGeneration};

/// Why a worker is recycled, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecycleReason {
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

impl RecycleReason {
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
    pub(super) queue: Vec<(WorkerId, RecycleReason)>,
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
    pub(super) wait_for_state: BTreeMap<String, StagedGeneration>,
    began: Instant,
    reason: RecycleReason,
}

impl Supervisor {
    /// Recycles one worker, or all, as an operator asks. The reply says how many were replaced.
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

    /// Recycles workers, one after the other. The reply says how many were replaced.
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

    /// Recycles a worker, when those before it are done.
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

    /// Starts the replacement of the next worker, unless one is being replaced or an app is being
    /// loaded.
    pub(super) fn recycle_next(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        while let Some((old, reason)) = self.recycling.queue.first().copied() {
            if self.fleet.is_staying(old) && self.is_loading_in_workers() {
                // What is on its way goes on first: it may need the state of what serves.
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

    /// Whether an app is between its first load in a worker and its commit.
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
            let timeout = self.graceful_timeout;
            self.fleet.stop_replaced(current.old, timeout, give);
        }
    }

    /// The old worker has given the state of an app, or could not: the new one starts the app with it,
    /// or without.
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
