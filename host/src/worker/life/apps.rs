//! Commits, suspends, removes and ends apps, on orders of the supervisor.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use plugin_api::host;

use super::{RetiringGeneration, Worker, WorkerApp, WorkerTaskOutcome};
use crate::{
    log::bridge,
    orders::{Commit, Notice},
    scoreboard::WorkKind,
    worker::{
        generation::{DrainResult, Generation},
        load::Loaded,
    },
};

impl Worker {
    pub(super) fn hold(&mut self, name: &str, mounts: Vec<Arc<str>>) {
        let app = self.apps.entry(name.to_owned()).or_default();
        if app.serving.is_none() {
            self.registry.publish(bridge::intern(name), mounts, None);
        }
    }

    /// Makes loaded generations serve, all at one moment: the registry replaces all routes with one store.
    pub(super) fn commit(&mut self, commits: &[Commit]) {
        let mut changes = Vec::new();
        let mut swaps = Vec::new();
        for commit in commits {
            let app = self.apps.get_mut(&commit.app);
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
            self.swapped(commit, generation, paused.is_some(), took);
            // The pause must end after the generation before was closed. Otherwise a request that waited could
            // still enter that generation.
            drop(paused);
        }
    }

    fn swapped(
        &mut self,
        commit: &Commit,
        generation: Arc<Generation>,
        handed_over: bool,
        took: Duration,
    ) {
        let Some(app) = self.apps.get_mut(&commit.app) else {
            return;
        };
        let before = app.serving.replace(Arc::clone(&generation));
        let kept = app.kept.take();
        let in_flight = before.as_ref().map_or(0, |before| before.app.in_flight());
        if let Some(before) = before.as_ref().filter(|_| commit.watch && !handed_over) {
            app.kept = Some(Arc::clone(before));
            // The kept generation is notified that it drains, so that its long-lived connections end and clients
            // move to the new one.
            drop(before.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        self.notices.send(Notice::Swapped {
            app: commit.app.clone(),
            generation: commit.generation,
            took,
            in_flight,
        });
        if let Some(kept) = kept {
            self.end(kept);
        }
        if let Some(before) = before {
            if commit.watch {
                self.watch(generation, Arc::clone(&before));
            }
            if !commit.watch || handed_over {
                self.end(before);
            }
        }
    }

    pub(super) fn suspend(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        if let Some(serving) = &app.serving {
            let (name, mounts) = (serving.name, serving.spec.mounts.clone());
            self.registry.publish(name, mounts, None);
        }
        let generations = [app.serving.take(), app.kept.take()];
        for generation in generations.into_iter().flatten() {
            self.end(generation);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.registry.remove(name);
        if let Some(app) = self.apps.remove(name) {
            self.end_app(app, self.settings.graceful_timeout);
        }
    }

    pub(super) fn end_app(&mut self, mut app: WorkerApp, timeout: Duration) {
        let loaded = mem::take(&mut app.loaded).into_values();
        for loaded in loaded {
            self.end_within(Arc::new(loaded.generation), timeout);
        }
        for generation in app.serving.into_iter().chain(app.kept) {
            self.end_within(generation, timeout);
        }
    }

    pub(super) fn end(&mut self, generation: Arc<Generation>) {
        self.end_within(generation, self.settings.graceful_timeout);
    }

    /// Ends a generation to which the registry does not route any more.
    fn end_within(&mut self, generation: Arc<Generation>, timeout: Duration) {
        generation.app.close();
        self.retiring.push(RetiringGeneration {
            generation: Arc::clone(&generation),
            since: Instant::now(),
        });
        self.tasks.spawn(async move {
            let retired = Arc::clone(&generation).retire(timeout).await;
            WorkerTaskOutcome::Retired {
                generation,
                retired,
            }
        });
    }

    pub(super) fn retired(&mut self, generation: &Arc<Generation>, retired: DrainResult) {
        self.retiring
            .retain(|retiring| !Arc::ptr_eq(&retiring.generation, generation));
        self.ended_requests += generation.app.requests();
        self.ended
            .push((generation.name.to_owned(), generation.copy.clone()));
        self.notices.send(Notice::Retired {
            app: generation.name.to_owned(),
            generation: generation.number,
            drained: retired.drained,
            aborted: retired.aborted,
        });
    }
}
