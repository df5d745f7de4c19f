//! Loads that the supervisor orders: started, reported, and discarded.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task;
use tracing::debug;

use super::{RunningLoad, Worker, WorkerTaskOutcome};
use crate::{
    error_chain::chain,
    log::bridge,
    orders::{Commit, Notice, StagedGeneration, Step},
    worker::{
        link::Notices,
        load::{self, LoadError, LoadProgress, Loaded},
    },
};

impl Worker {
    pub(super) fn load(&mut self, staged: StagedGeneration, serve: bool, state: Option<Vec<u8>>) {
        let app = self.apps.entry(staged.app.clone()).or_default();
        let (name, generation) = (staged.app.clone(), staged.generation);
        let progress = LoadProgress::new(progress_notice(
            self.notices.clone(),
            name.clone(),
            generation,
        ));
        let order = load::LoadOrder {
            name: bridge::intern(&staged.app),
            staged,
            before: app.serving.clone(),
            state: state.map(Bytes::from),
            settings: self.settings,
            filter: self.filter.clone(),
        };
        let (budget, opening) = (Arc::clone(&self.budget), Arc::clone(&self.opening));
        let task = self.tasks.spawn({
            let app = name.clone();
            async move {
                let loaded = load::load(order, budget, opening, progress).await;
                WorkerTaskOutcome::Loaded {
                    app,
                    generation,
                    loaded: Box::new(loaded),
                }
            }
        });
        app.loading.insert(generation, RunningLoad { task, serve });
    }

    pub(super) fn loaded(
        &mut self,
        name: &str,
        generation: u64,
        loaded: Result<Loaded, LoadError>,
    ) {
        let loading = self.apps.get_mut(name);
        let loading = loading.and_then(|app| app.loading.remove(&generation));
        self.notices.send(Notice::LoadsLeft(self.budget.left()));
        match (loading, loaded) {
            // The generation was discarded during its load.
            (None, Ok(loaded)) => self.end(Arc::new(loaded.generation)),
            (None, Err(_)) => {}
            (Some(RunningLoad { serve, .. }), Err(error)) => {
                if serve {
                    // The app does not come, so requests that wait for it are answered with 503.
                    self.registry.stop_awaiting(name);
                }
                self.notices.send(Notice::Failed {
                    app: name.to_owned(),
                    generation,
                    step: error.step().to_owned(),
                    error: chain(&error),
                });
            }
            // A newer generation serves already, so this one is not needed.
            (Some(RunningLoad { serve: true, .. }), Ok(loaded))
                if self.serves_newer(name, generation) =>
            {
                self.end(Arc::new(loaded.generation));
            }
            (Some(RunningLoad { serve, .. }), Ok(loaded)) => {
                self.notices.send(Notice::Loaded {
                    app: name.to_owned(),
                    generation,
                    timings: loaded.timings,
                    handed_over: loaded.paused.is_some(),
                    hands_over: loaded.generation.app.hands_over(),
                });
                if let Some(app) = self.apps.get_mut(name) {
                    app.loaded.insert(generation, loaded);
                }
                if serve {
                    self.commit(&[Commit {
                        app: name.to_owned(),
                        generation,
                        watch: false,
                    }]);
                }
            }
        }
    }

    fn serves_newer(&self, name: &str, generation: u64) -> bool {
        let serving = self.apps.get(name).and_then(|app| app.serving.as_ref());
        serving.is_some_and(|serving| serving.number > generation)
    }

    pub(super) fn discard(&mut self, name: &str, generation: u64) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        if app.loading.remove(&generation).is_some() {
            // A start cannot be interrupted. When it is over, its result is dropped.
            debug!(plugin = name, generation, "Discarded while it starts");
        }
        if let Some(loaded) = app.loaded.remove(&generation) {
            // Ending the pause lets the generation before serve again, and may block.
            let Loaded {
                generation, paused, ..
            } = loaded;
            task::spawn_blocking(move || drop(paused));
            self.end(Arc::new(generation));
        }
    }
}

/// Returns a function that reports each step of a load to the supervisor.
fn progress_notice(
    notices: Notices,
    app: String,
    generation: u64,
) -> impl Fn(Step) + Send + Sync + 'static {
    move |step| {
        notices.send(Notice::Step {
            app: app.clone(),
            generation,
            step,
        });
    }
}
