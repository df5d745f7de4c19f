//! Starts the probation of a new generation, and executes the order to end the probation.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{Worker, WorkerTaskOutcome};
use crate::{
    apps::generation::Generation,
    orders::Notice,
    scoreboard::WorkKind,
    worker::probation::{self, ProbationVerdict},
};

impl Worker {
    /// Starts a task that compares the generation `new` with `old` until the verdict.
    pub(super) fn start_probation(&mut self, new: Arc<Generation>, old: Arc<Generation>) {
        let policy = self.settings.probation;
        self.tasks.spawn(async move {
            let verdict = probation::judge(Arc::clone(&new), old, policy).await;
            WorkerTaskOutcome::Judged {
                generation: new,
                verdict,
            }
        });
    }

    /// Notifies the supervisor of the verdict. The supervisor decides and sends an
    /// [`Order::Settle`](crate::orders::Order).
    pub(super) fn send_verdict(&mut self, generation: &Arc<Generation>, verdict: ProbationVerdict) {
        let failed = match verdict {
            ProbationVerdict::Passed => None,
            ProbationVerdict::Failed { failures, requests } => Some((failures, requests)),
        };
        self.notices.send(Notice::Judged {
            app: generation.name.to_owned(),
            generation: generation.number,
            failed,
        });
    }

    /// Ends the probation of a generation. If `back` is true, the previous generation serves again and this generation
    /// ends. Otherwise the previous generation ends. Does nothing if the probation is over.
    pub(super) fn settle(&mut self, name: &str, generation: u64, back: bool) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let is_on_probation = |serving: &Arc<Generation>| serving.number == generation;
        if !app.serving.as_ref().is_some_and(is_on_probation) {
            return;
        }
        let Some(previous) = app.previous.take() else {
            return;
        };
        if !back {
            return self.end(previous);
        }
        let failed = app.serving.replace(Arc::clone(&previous));
        let (name, mounts) = (previous.name, previous.spec.mounts.clone());
        cancel_drain(&previous);
        // The routes change before the failed generation is closed, so that every request finds an open generation.
        self.registry.publish(name, mounts, Some(previous));
        if let Some(failed) = failed {
            self.end(failed);
        }
    }
}

/// Tells an app that its drain is cancelled, and waits until the app knows. Otherwise a request that comes right after the
/// rollback would find [`Context::draining`](plugin_api::Context::draining) ready, and end.
///
/// The wait blocks the worker's task, so it is short: the notification may run the author's code, which may block.
fn cancel_drain(generation: &Generation) {
    let (sender, notified) = mpsc::channel();
    drop(generation.spawn_in_app(WorkKind::Drain, move |app| {
        app.cancel_drain();
        // The receiver is gone if the notification took longer than the wait.
        let _ = sender.send(());
    }));
    // After a timeout the previous generation serves all the same, because the new one has failed.
    let _ = notified.recv_timeout(CANCEL_DRAIN_TIMEOUT);
}

/// How long a rollback waits until the app knows that its drain is cancelled.
const CANCEL_DRAIN_TIMEOUT: Duration = Duration::from_millis(100);
