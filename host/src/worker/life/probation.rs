//! Runs the probation of a new generation, and settles it on an order of the supervisor.

use std::sync::Arc;

use plugin_api::host;

use super::{Worker, WorkerTaskOutcome};
use crate::{
    orders::Notice,
    scoreboard::WorkKind,
    worker::{
        generation::Generation,
        probation::{self, ProbationVerdict},
    },
};

impl Worker {
    pub(super) fn watch(&mut self, new: Arc<Generation>, old: Arc<Generation>) {
        let probation = self.settings.probation;
        self.tasks.spawn(async move {
            let verdict = probation::watch(Arc::clone(&new), old, probation).await;
            WorkerTaskOutcome::Judged {
                generation: new,
                verdict,
            }
        });
    }

    pub(super) fn judged(&mut self, generation: &Arc<Generation>, verdict: ProbationVerdict) {
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

    pub(super) fn settle(&mut self, name: &str, generation: u64, back: bool) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let serves = |serving: &Arc<Generation>| serving.number == generation;
        if !app.serving.as_ref().is_some_and(serves) {
            return;
        }
        let Some(kept) = app.kept.take() else { return };
        if !back {
            return self.end(kept);
        }
        let bad = app.serving.replace(Arc::clone(&kept));
        let told = Arc::clone(&kept);
        let (name, mounts) = (kept.name, kept.spec.mounts.clone());
        // The routes change first, so that new requests reach the kept generation.
        let registry = Arc::clone(&self.registry);
        registry.publish(name, mounts, Some(kept));
        drop(told.spawn_in_app(WorkKind::Drain, host::App::go_on));
        if let Some(bad) = bad {
            self.end(bad);
        }
    }
}
