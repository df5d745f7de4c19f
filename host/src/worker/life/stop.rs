//! The end of a worker: it accepts no more connections, gives state away, and ends its apps.

use std::time::{Duration, Instant};

use plugin_api::host;

use super::{Worker, WorkerTaskOutcome};
use crate::scoreboard::WorkKind;

/// How the worker ends.
#[derive(Debug)]
pub(super) struct StopRequest {
    began: Instant,
    timeout: Duration,
    /// The apps whose state another worker waits for.
    give: Vec<String>,
}

impl Worker {
    /// Gives the state of the apps that another worker waits for, unless that was begun.
    pub(super) fn give_once(&mut self) {
        let stopping = self.stopping.as_mut();
        let apps = stopping.map(|stopping| std::mem::take(&mut stopping.give));
        let apps = apps.unwrap_or_default();
        self.giving += apps.len();
        self.give(apps);
    }

    /// Accepts no more connections and lets those that are open end. Apps are told to finish.
    /// `give` are the apps whose state another worker waits for.
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
            // The author's code hears of it, on a thread that it may hold up.
            drop(generation.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        let closing = self.serving.close(timeout, shared);
        let all_requests_read = closing.clone().all_requests_read();
        let latest = self.settings.handover_timeout;
        self.tasks.spawn(async move {
            // Requests wait in the other worker meanwhile.
            let _ = tokio::time::timeout(latest, all_requests_read).await;
            WorkerTaskOutcome::Give
        });
        self.tasks.spawn(async move {
            closing.ended().await;
            WorkerTaskOutcome::Disconnected
        });
    }

    /// Ends all apps, after the last connection.
    pub(super) async fn end_apps(&mut self) {
        self.serving.closed();
        let timeout = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| {
            stopping.timeout.saturating_sub(stopping.began.elapsed())
        });
        for (name, mut app) in std::mem::take(&mut self.apps) {
            self.registry.remove(&name);
            for loading in std::mem::take(&mut app.loading).into_values() {
                // A start that is under way has nobody to serve.
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
