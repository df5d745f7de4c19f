//! Recycling: replaces a running worker by a fresh worker without losing a request.
//!
//! The new worker first loads all generations that serve. When the new worker accepts connections, the old worker
//! stops accepting connections, finishes its requests, asks its clients to reconnect, and exits. An app that hands its
//! state over starts in the new worker only after the old worker has sent the state. Until then, requests to that app
//! wait in the new worker. One worker is recycled at a time, so that at most one additional worker runs.

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
    /// An operator requested the recycling.
    Operator,
    /// The host was upgraded.
    Upgrade,
}

impl RecycleReason {
    /// Returns the reason as a text for the log.
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
    /// The workers to be replaced next, in order, each with the reason.
    pub(super) queue: Vec<(WorkerId, RecycleReason)>,
    /// The replacement under way.
    pub(super) current: Option<Replacement>,
    /// The operators who wait until the queue is empty.
    replies: Vec<oneshot::Sender<Result<usize, String>>>,
    /// The number of workers that were replaced since the queue was last empty.
    replaced_count: usize,
    /// The states of apps that were sent to a new worker, by worker and app, until the app has started. If the load
    /// fails, it is repeated with the stored state, because the old worker has closed the app and cannot send the state
    /// again.
    states: BTreeMap<(WorkerId, String), Vec<u8>>,
}

impl Recycling {
    /// Returns the state with which the app must start in a new worker. Returns `None` if the old worker sent no state.
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
pub(super) struct Replacement {
    pub(super) old: WorkerId,
    pub(super) new: WorkerId,
    /// The generations, by app, that the new worker starts only after the old worker has sent the state.
    pub(super) waiting_for_state: BTreeMap<String, StagedGeneration>,
    /// When the replacement began, for the log.
    began: Instant,
    reason: RecycleReason,
}

impl Supervisor {
    /// Handles the command of an operator to recycle the worker `only`, or all workers if `only` is `None`. The reply
    /// is the number of replaced workers, or the reason why no worker can be replaced.
    pub(super) fn recycle_for_operator(
        &mut self,
        only: Option<WorkerId>,
        reply: oneshot::Sender<Result<usize, String>>,
    ) {
        let ready = self.fleet.ready_workers();
        let error = match only {
            _ if self.spawner.is_none() => {
                "the host is one process (--workers=0), which has no workers to recycle".to_owned()
            }
            None => return self.recycle_workers(ready, RecycleReason::Operator, reply),
            Some(only) if ready.contains(&only) => {
                return self.recycle_workers(vec![only], RecycleReason::Operator, reply);
            }
            Some(only) => {
                let expected: Vec<_> = ready.iter().map(ToString::to_string).collect();
                let expected = expected.join(", ");
                format!("there is no worker {only} that serves, expected one of: {expected}")
            }
        };
        // The requester may have disconnected.
        let _ = reply.send(Err(error));
    }

    /// Queues workers for recycling. The reply is sent when the queue is empty.
    pub(super) fn recycle_workers(
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
        // Without a spawner (`--workers=0`) the only worker is a task, which cannot be replaced.
        if self.spawner.is_some() && !is_current && !is_queued {
            recycling.queue.push((worker, reason));
        }
    }

    /// Starts the next replacement, unless a replacement is under way. Answers the operators if the queue is empty.
    pub(super) fn recycle_next(&mut self) {
        if self.recycling.current.is_some() {
            return;
        }
        while let Some((old, reason)) = self.recycling.queue.first().copied() {
            if self.fleet.is_staying(old) && self.is_loading_in_workers() {
                // The queue waits until the load has ended. The load may need the state of the running generation in
                // this worker, and a recycling would move that state to another worker.
                return;
            }
            self.recycling.queue.remove(0);
            // The worker has exited or stops already, so nothing has to be replaced.
            if !self.fleet.is_staying(old) {
                continue;
            }
            let Some(spawner) = &self.spawner else { return };
            let new = self.fleet.next_id();
            let link = spawner.start(new);
            self.fleet.add(new, link);
            info!(
                worker = old,
                by = new,
                reason = reason.text(),
                "Recycling a worker"
            );
            self.recycling.current = Some(Replacement {
                old,
                new,
                waiting_for_state: BTreeMap::new(),
                began: Instant::now(),
                reason,
            });
            return;
        }
        let replaced_count = std::mem::take(&mut self.recycling.replaced_count);
        for reply in self.recycling.replies.drain(..) {
            // The requester may have disconnected.
            let _ = reply.send(Ok(replaced_count));
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

    /// Returns the old worker that the worker `new` replaces. Returns `None` if `new` replaces no worker.
    pub(super) fn replaced_by(&self, new: WorkerId) -> Option<WorkerId> {
        let current = self.recycling.current.as_ref()?;
        (current.new == new).then_some(current.old)
    }

    /// Orders the worker that `new` replaces to stop, because `new` accepts connections now. Does nothing if `new`
    /// replaces no worker.
    pub(super) fn stop_worker_replaced_by(&mut self, new: WorkerId) {
        let Some(current) = &self.recycling.current else {
            return;
        };
        if current.new == new {
            let give = current.waiting_for_state.keys().cloned().collect();
            let timeout = self.graceful_timeout;
            self.fleet.stop_replaced(current.old, timeout, give);
        }
    }

    /// Handles the state of an app from the old worker: the new worker loads the app with that state. If the old worker
    /// sends an error instead, the app starts without a state.
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
        let Some(staged) = current.waiting_for_state.remove(app) else {
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

    /// Handles the exit of any worker. If the old worker of the replacement under way has exited, the replacement is
    /// complete. If the new worker has exited, the old worker continues to serve.
    pub(super) fn recycle_after_exit(&mut self, worker: WorkerId) {
        self.recycling.states.retain(|(new, _), _| *new != worker);
        // A worker that has exited need not be replaced.
        self.recycling.queue.retain(|&(queued, _)| queued != worker);
        let Some(current) = self.recycling.current.take() else {
            return self.recycle_next();
        };
        if worker == current.old {
            // The old worker has not sent the state of these apps, so they start without a state.
            for staged in current.waiting_for_state.into_values() {
                self.fleet.send(
                    current.new,
                    Order::Load {
                        staged,
                        serve: true,
                        state: None,
                    },
                );
            }
            self.recycling.replaced_count += 1;
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
                "Not recycled, because the new worker ended; the old worker continues to serve"
            );
        } else {
            // Another worker has exited, so the replacement continues.
            self.recycling.current = Some(current);
            return;
        }
        self.finish_replacements();
        self.recycle_next();
    }
}
