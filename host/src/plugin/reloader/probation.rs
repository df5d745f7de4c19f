//! What becomes of a new generation while it is watched: it stays, or the one before is back.

use std::{mem, sync::Arc, time::SystemTime};

use tokio::task;
use tracing::{error, info};

use super::{App, Done, Reloader, State};
use crate::plugin::{
    generation::Generation,
    probation::{self, Verdict},
    report::Failure,
};

impl Reloader {
    /// Watches `new`, which replaced `old`.
    pub(super) fn watch(
        &mut self,
        name: &'static str,
        new: &Arc<Generation>,
        old: Arc<Generation>,
        kept: Option<Arc<Generation>>,
    ) {
        let (Some(terms), Some(app)) = (self.options.probation, self.apps.get_mut(name)) else {
            return;
        };
        app.state = State::Probation { kept };
        let generation = Arc::clone(new);
        self.tasks.spawn(async move {
            let verdict = probation::watch(Arc::clone(&generation), old, terms).await;
            Done::Judged {
                generation,
                verdict,
            }
        });
    }

    /// Probation → Resting, or Loading when the one before was not kept.
    pub(super) fn judged(&mut self, generation: &Arc<Generation>, verdict: Verdict) {
        let name = generation.name;
        let is_it = |app: &&mut App| {
            matches!(app.state, State::Probation { .. })
                && app
                    .serving
                    .as_ref()
                    .is_some_and(|serving| Arc::ptr_eq(serving, generation))
        };
        let Some(app) = self.apps.get_mut(name).filter(is_it) else {
            // It was replaced meanwhile.
            return;
        };
        let State::Probation { kept } = mem::replace(&mut app.state, State::Resting) else {
            return;
        };
        match (verdict, kept) {
            (Verdict::Passed, kept) => {
                info!(
                    plugin = name,
                    generation = generation.number,
                    "Passed its probation"
                );
                if let Some(kept) = kept {
                    self.retire(kept, self.options.graceful_timeout, None);
                }
            }
            (Verdict::Failed { failures, requests }, kept) => {
                self.roll_back(generation, kept, failures, requests);
            }
        }
    }

    fn roll_back(
        &mut self,
        bad: &Arc<Generation>,
        kept: Option<Arc<Generation>>,
        failures: u64,
        requests: u64,
    ) {
        let name = bad.name;
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let back = kept.as_ref().map(|kept| kept.number);
        error!(
            plugin = name,
            generation = bad.number,
            hash = bad.spec.hash.short(),
            failures,
            requests,
            back,
            file = %app.library.display(),
            "Fails too often, rolling back; this library is not loaded again until it changes"
        );
        app.last_error = Some(Failure {
            file: app.library.display().to_string(),
            hash: Some(bad.spec.hash.short()),
            step: "probation",
            error: format!("{failures} failures in {requests} requests, rolled back"),
            at: SystemTime::now(),
        });
        app.rejected = Some(Arc::clone(&bad.spec));
        match kept {
            Some(kept) => {
                app.serving = Some(Arc::clone(&kept));
                // It is what served before, and is not to be rolled back from to what is bad.
                app.previous = None;
                app.mounts.clone_from(&kept.spec.mounts);
                let again = kept.app;
                task::spawn_blocking(move || again.go_on());
                self.registry.publish(name, app.mounts.clone(), Some(kept));
                self.retire(Arc::clone(bad), self.options.graceful_timeout, None);
            }
            None => self.roll_back_to_copy(name, None),
        }
    }
}
