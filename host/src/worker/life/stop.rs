//! The end of a worker: it accepts no more connections, gives state away, and ends its apps.

use std::time::{Duration, Instant};

use plugin_api::host;

use super::{Worker, WorkerTaskOutcome};
use crate::scoreboard::WorkKind;

/// A stop under way.
#[derive(Debug)]
pub(super) struct StopRequest {
    began: Instant,
    timeout: Duration,
    /// The apps whose state another worker waits for.
    give: Vec<String>,
}

impl Worker {
    /// Begins to give the state of the apps that another worker waits for. A second call does nothing.
    pub(super) fn give_once(&mut self) {
        let stopping = self.stopping.as_mut();
        let apps = stopping.map(|stopping| std::mem::take(&mut stopping.give));
        let apps = apps.unwrap_or_default();
        self.giving += apps.len();
        self.give(apps);
    }

    /// Begins the stop: accepts no more connections, lets open ones finish, and notifies the apps. `give` lists
    /// the apps whose state another worker waits for.
    ///
    /// States are given when no connection can bring another request, and after the handover timeout at the
    /// latest, because requests wait in the other worker meanwhile.
    pub(super) fn stop(&mut self, timeout: Duration, shared: bool, give: Vec<String>) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(StopRequest {
            began: Instant::now(),
            timeout,
            give,
        });
        for generation in self.registry.serving() {
            // The author's code is notified on a blocking thread, because it may block.
            drop(generation.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        let closing = self.serving.close(timeout, shared);
        let all_requests_read = closing.clone().all_requests_read();
        let latest = self.settings.handover_timeout;
        self.tasks.spawn(async move {
            // The limit is the handover timeout, because requests wait in the other worker meanwhile.
            let _ = tokio::time::timeout(latest, all_requests_read).await;
            WorkerTaskOutcome::Give
        });
        self.tasks.spawn(async move {
            closing.ended().await;
            WorkerTaskOutcome::Disconnected
        });
    }

    /// Ends all apps after the last connection has ended. They get the rest of the time for the stop.
    pub(super) async fn end_apps(&mut self) {
        self.serving.closed();
        let timeout = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| {
            stopping.timeout.saturating_sub(stopping.began.elapsed())
        });
        for (name, mut app) in std::mem::take(&mut self.apps) {
            self.registry.remove(&name);
            for loading in std::mem::take(&mut app.loading).into_values() {
                // The started app would have no requests to serve.
                loading.task.abort();
            }
            self.end_app(app, timeout);
        }
        while !self.retiring.is_empty() {
            match self.tasks.join_next().await {
                Some(done) => self.done(done),
                None => break,
            };
        }
    }
}
