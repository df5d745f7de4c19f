//! The watch over a generation that has taken over, while the one before is kept.

use std::sync::Arc;

use plugin_api::host;

use super::{Done, Worker};
use crate::{
    orders::Notice,
    scoreboard::Doing,
    worker::{
        generation::Generation,
        probation::{self, Verdict},
    },
};

impl Worker {
    pub(super) fn watch(&mut self, new: Arc<Generation>, old: Arc<Generation>) {
        let terms = self.settings.terms;
        self.tasks.spawn(async move {
            let verdict = probation::watch(Arc::clone(&new), old, terms).await;
            Done::Judged {
                generation: new,
                verdict,
            }
        });
    }

    pub(super) fn judged(&mut self, generation: &Arc<Generation>, verdict: Verdict) {
        let failed = match verdict {
            Verdict::Passed => None,
            Verdict::Failed { failures, requests } => Some((failures, requests)),
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
        // Published after the app was told, so that no request meets an app that ends.
        let registry = Arc::clone(&self.registry);
        registry.publish(name, mounts, Some(kept));
        drop(told.spawn_in_app(Doing::Drain, host::App::go_on));
        if let Some(bad) = bad {
            self.end(bad);
        }
    }
}
