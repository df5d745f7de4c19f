//! The apps of a worker: loaded, committed, watched and ended as the supervisor says.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plugin_api::host;
use tokio::task;
use tracing::debug;

use super::{App, Done, Loading, Progress, Retiring, Worker};
use crate::{
    error_chain::chain,
    log::bridge,
    orders::{Commit, Notice, Started},
    scoreboard::WorkKind,
    worker::{
        generation::{Generation, Retired},
        link::Notices,
        load::{self, LoadError, Loaded, Step},
        probation::{self, Verdict},
    },
};

impl Worker {
    pub(super) fn hold(&mut self, name: &str, mounts: Vec<Arc<str>>) {
        let app = self.apps.entry(name.to_owned()).or_default();
        if app.serving.is_none() {
            self.registry.publish(bridge::intern(name), mounts, None);
        }
    }

    pub(super) fn load(&mut self, started: Started, serve: bool, state: Option<Vec<u8>>) {
        let app = self.apps.entry(started.app.clone()).or_default();
        let (name, generation) = (started.app.clone(), started.generation);
        let progress = Progress::new(progress_notice(
            self.notices.clone(),
            name.clone(),
            generation,
        ));
        let order = load::Order {
            name: bridge::intern(&started.app),
            started,
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
                Done::Loaded {
                    app,
                    generation,
                    loaded: Box::new(loaded),
                }
            }
        });
        app.loading.insert(generation, Loading { task, serve });
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
            // It was discarded meanwhile.
            (None, Ok(loaded)) => self.end(Arc::new(loaded.generation)),
            (None, Err(_)) => {}
            (Some(Loading { serve, .. }), Err(error)) => {
                if serve {
                    // Requests that wait for the app are answered with 503.
                    self.registry.forget_expected(name);
                }
                self.notices.send(Notice::Failed {
                    app: name.to_owned(),
                    generation,
                    step: error.step().to_owned(),
                    error: chain(&error),
                });
            }
            // What others have meanwhile is newer.
            (Some(Loading { serve: true, .. }), Ok(loaded)) if self.has_newer(name, generation) => {
                self.end(Arc::new(loaded.generation));
            }
            (Some(Loading { serve, .. }), Ok(loaded)) => {
                self.notices.send(Notice::Loaded {
                    app: name.to_owned(),
                    generation,
                    took: loaded.took,
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

    fn has_newer(&self, name: &str, generation: u64) -> bool {
        let serving = self.apps.get(name).and_then(|app| app.serving.as_ref());
        serving.is_some_and(|serving| serving.number > generation)
    }

    /// The generations get the requests from here on, all at one moment.
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
            // After the one before was closed, so that no request gets into it any more.
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
            // It keeps no client from the new one.
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

    fn watch(&mut self, new: Arc<Generation>, old: Arc<Generation>) {
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
        drop(told.spawn_in_app(WorkKind::Drain, host::App::go_on));
        if let Some(bad) = bad {
            self.end(bad);
        }
    }

    pub(super) fn discard(&mut self, name: &str, generation: u64) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        if app.loading.remove(&generation).is_some() {
            // A start that is under way ends by itself, and finds nobody who wants it.
            debug!(plugin = name, generation, "Discarded while it starts");
        }
        if let Some(loaded) = app.loaded.remove(&generation) {
            // The one before goes on before the new one ends.
            let Loaded {
                generation, paused, ..
            } = loaded;
            task::spawn_blocking(move || drop(paused));
            self.end(Arc::new(generation));
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

    pub(super) fn end_app(&mut self, mut app: App, patience: Duration) {
        let loaded = mem::take(&mut app.loaded).into_values();
        for loaded in loaded {
            self.end_within(Arc::new(loaded.generation), patience);
        }
        for generation in app.serving.into_iter().chain(app.kept) {
            self.end_within(generation, patience);
        }
    }

    fn end(&mut self, generation: Arc<Generation>) {
        self.end_within(generation, self.settings.graceful_timeout);
    }

    /// Ends a generation that the registry does not name any more.
    fn end_within(&mut self, generation: Arc<Generation>, patience: Duration) {
        generation.app.close();
        self.retiring.push(Retiring {
            generation: Arc::clone(&generation),
            since: Instant::now(),
        });
        self.tasks.spawn(async move {
            let retired = Arc::clone(&generation).retire(patience).await;
            Done::Retired {
                generation,
                retired,
            }
        });
    }

    pub(super) fn retired(&mut self, generation: &Arc<Generation>, retired: Retired) {
        self.retiring
            .retain(|retiring| !Arc::ptr_eq(&retiring.generation, generation));
        self.ended_requests += generation.app.requests();
        self.ended
            .push((generation.name.to_owned(), generation.copy.clone()));
        self.notices.send(Notice::Retired {
            app: generation.name.to_owned(),
            generation: generation.number,
            drained: retired.drained,
            cut: retired.cut,
        });
    }
}

/// Tells the supervisor of each step that a load begins.
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
