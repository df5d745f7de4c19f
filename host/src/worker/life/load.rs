//! Executes the orders to load and discard generations, and reports the results of loads.

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
    /// Starts a load in a background task.
    pub(super) fn load(&mut self, staged: StagedGeneration, serve: bool, state: Option<Vec<u8>>) {
        let app = self.apps.entry(staged.app.clone()).or_default();
        let (name, generation) = (staged.app.clone(), staged.generation);
        let progress = LoadProgress::new(progress_notice(
            self.notices.clone(),
            name.clone(),
            generation,
        ));
        let order = load::LoadOrder {
            // The name of an app must live as long as the process, because a library is never unloaded.
            name: bridge::intern(&staged.app),
            staged,
            previous: app.serving.clone(),
            state: state.map(Bytes::from),
            settings: self.settings,
            filter: self.filter.clone(),
        };
        let (budget, open_permits) = (Arc::clone(&self.budget), Arc::clone(&self.open_permits));
        let task = self.tasks.spawn({
            let app = name.clone();
            async move {
                let result = load::load(order, budget, open_permits, progress).await;
                WorkerTaskOutcome::Loaded {
                    app,
                    generation,
                    result: Box::new(result),
                }
            }
        });
        app.loading.insert(generation, RunningLoad { task, serve });
    }

    /// Handles the result of a load: stores or commits the generation, and notifies the supervisor.
    pub(super) fn finish_load(
        &mut self,
        name: &str,
        generation: u64,
        result: Result<Loaded, LoadError>,
    ) {
        // `None` if the generation was discarded, or its app removed, during the load.
        let loading = self.apps.get_mut(name);
        let loading = loading.and_then(|app| app.loading.remove(&generation));
        self.notices
            .send(Notice::LoadsLeft(self.budget.remaining_loads()));
        match (loading, result) {
            // The generation was discarded during its load.
            (None, Ok(loaded)) => self.end(Arc::new(loaded.generation)),
            (None, Err(_)) => {}
            (Some(RunningLoad { serve, .. }), Err(error)) => {
                if serve {
                    // Requests may wait for this app. They are answered with 503 now, because the app will not start.
                    self.registry.stop_awaiting(name);
                }
                self.notices.send(Notice::Failed {
                    app: name.to_owned(),
                    generation,
                    step: error.step().to_owned(),
                    error: chain(&error),
                });
            }
            // A newer generation serves already, so the loaded generation is not needed.
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

    /// Returns whether the app serves with a newer generation than `generation`.
    fn serves_newer(&self, name: &str, generation: u64) -> bool {
        let serving = self.apps.get(name).and_then(|app| app.serving.as_ref());
        serving.is_some_and(|serving| serving.number > generation)
    }

    /// Ends a generation that is loading or waits for its commit.
    pub(super) fn discard(&mut self, name: &str, generation: u64) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        if app.loading.remove(&generation).is_some() {
            // A start cannot be interrupted. When the load is finished, `finish_load` ends the generation.
            debug!(plugin = name, generation, "Discarded while it starts");
        }
        if let Some(loaded) = app.loaded.remove(&generation) {
            let Loaded {
                generation, paused, ..
            } = loaded;
            // Dropping the pause lets the previous generation serve again. The drop runs on a blocking thread, because
            // the drop may block.
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
