//! Executes the orders to hold, commit, suspend and remove apps, and ends generations.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use plugin_api::host;

use super::{RetiringGeneration, Worker, WorkerApp, WorkerTaskOutcome};
use crate::{
    apps::generation::{DrainResult, Generation},
    log::bridge,
    orders::{Commit, Notice},
    scoreboard::WorkKind,
    worker::load::Loaded,
};

impl Worker {
    /// Answers requests below `mounts` with 503 until the app `name` serves. Changes no route if the app serves
    /// already.
    pub(super) fn hold(&mut self, name: &str, mounts: Vec<Arc<str>>) {
        let app = self.apps.entry(name.to_owned()).or_default();
        if app.serving.is_none() {
            self.registry.publish(bridge::intern(name), mounts, None);
        }
    }

    /// Makes loaded generations serve, all at one moment, because the registry replaces all routes with one atomic
    /// store. Skips generations that are not loaded.
    pub(super) fn commit(&mut self, commits: &[Commit]) {
        let mut changes = Vec::new();
        let mut swaps = Vec::new();
        for commit in commits {
            let app = self.apps.get_mut(&commit.app);
            // A generation that is not waiting here, for example because it was discarded, is skipped.
            let Some(loaded) = app.and_then(|app| app.loaded.remove(&commit.generation)) else {
                continue;
            };
            let Loaded {
                generation, paused, ..
            } = loaded;
            let generation = Arc::new(generation);
            changes.push((
                generation.name,
                generation.spec.mounts.clone(),
                Some(Arc::clone(&generation)),
            ));
            swaps.push((commit, generation, paused));
        }
        let began = Instant::now();
        self.registry.publish_all(changes);
        let took = began.elapsed();
        for (commit, generation, paused) in swaps {
            self.finish_swap(commit, generation, paused.is_some(), took);
            // The pause must end after the previous generation was closed. Otherwise a waiting request could still
            // enter the previous generation.
            drop(paused);
        }
    }

    /// Ends the previous generation after a swap, or keeps it running if a probation begins, and notifies the
    /// supervisor.
    fn finish_swap(
        &mut self,
        commit: &Commit,
        generation: Arc<Generation>,
        handed_over: bool,
        took: Duration,
    ) {
        let Some(app) = self.apps.get_mut(&commit.app) else {
            return;
        };
        let previous = app.serving.replace(Arc::clone(&generation));
        // An earlier probation may still be running. Its previous generation is not needed any more.
        let outdated = app.previous.take();
        let in_flight = previous
            .as_ref()
            .map_or(0, |previous| previous.app.in_flight());
        // A generation that has handed its state over is not kept for a probation, because its state is in the new
        // generation now.
        if let Some(previous) = previous.as_ref().filter(|_| commit.watch && !handed_over) {
            app.previous = Some(Arc::clone(previous));
            // The app is notified of a drain, so that its long-lived connections end and clients move to the new
            // generation.
            drop(previous.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        self.notices.send(Notice::Swapped {
            app: commit.app.clone(),
            generation: commit.generation,
            took,
            in_flight,
        });
        if let Some(outdated) = outdated {
            self.end(outdated);
        }
        if let Some(previous) = previous {
            if commit.watch {
                self.start_probation(generation, Arc::clone(&previous));
            }
            if !commit.watch || handed_over {
                self.end(previous);
            }
        }
    }

    /// Answers requests to the app with 503, and ends its generations.
    pub(super) fn suspend(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        // The routes change before the generations are closed, so that new requests get a 503 at once.
        if let Some(serving) = &app.serving {
            let (name, mounts) = (serving.name, serving.spec.mounts.clone());
            self.registry.publish(name, mounts, None);
        }
        let generations = [app.serving.take(), app.previous.take()];
        for generation in generations.into_iter().flatten() {
            self.end(generation);
        }
    }

    /// Removes the app and its routes, and ends its generations. A running load is not interrupted: its result finds no
    /// app and is ended.
    pub(super) fn remove(&mut self, name: &str) {
        // The routes go first, because the registry must not route to a generation that ends.
        self.registry.remove(name);
        if let Some(app) = self.apps.remove(name) {
            self.end_app(app, self.settings.graceful_timeout);
        }
    }

    /// Ends all generations of an app, to which the registry must not route any more.
    pub(super) fn end_app(&mut self, mut app: WorkerApp, timeout: Duration) {
        let loaded = mem::take(&mut app.loaded).into_values();
        for loaded in loaded {
            self.end_within(Arc::new(loaded.generation), timeout);
        }
        for generation in app.serving.into_iter().chain(app.previous) {
            self.end_within(generation, timeout);
        }
    }

    /// Ends a generation, which may drain for the graceful timeout.
    pub(super) fn end(&mut self, generation: Arc<Generation>) {
        self.end_within(generation, self.settings.graceful_timeout);
    }

    /// Ends a generation in a background task. The registry must not route to the generation any more. The generation
    /// may drain for `timeout`.
    fn end_within(&mut self, generation: Arc<Generation>, timeout: Duration) {
        // Closed here and not only in the task, so that no request enters after this call.
        generation.app.close();
        self.retiring.push(RetiringGeneration {
            generation: Arc::clone(&generation),
            since: Instant::now(),
        });
        self.tasks.spawn(async move {
            let drain_result = Arc::clone(&generation).retire(timeout).await;
            WorkerTaskOutcome::Retired {
                generation,
                drain_result,
            }
        });
    }

    /// Records that a generation has ended, and notifies the supervisor.
    pub(super) fn finish_retire(
        &mut self,
        generation: &Arc<Generation>,
        drain_result: DrainResult,
    ) {
        self.retiring
            .retain(|retiring| !Arc::ptr_eq(&retiring.generation, generation));
        self.ended_requests += generation.app.requests();
        self.ended
            .push((generation.name.to_owned(), generation.staged_path.clone()));
        self.notices.send(Notice::Retired {
            app: generation.name.to_owned(),
            generation: generation.number,
            drained: drain_result.duration,
            aborted: drain_result.aborted,
        });
    }
}
