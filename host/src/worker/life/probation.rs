//! Starts the probation of a new generation, and executes the order to end the probation.

use std::sync::Arc;

use plugin_api::host;

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
        // The routes change first, so that new requests reach the previous generation before the failed generation is
        // closed.
        self.registry
            .publish(name, mounts, Some(Arc::clone(&previous)));
        drop(previous.spawn_in_app(WorkKind::Drain, host::App::cancel_drain));
        if let Some(failed) = failed {
            self.end(failed);
        }
    }
}
