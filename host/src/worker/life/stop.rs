//! Stops a worker: ends the connections, sends the states that another worker waits for, and ends the apps.

use std::time::{Duration, Instant};

use plugin_api::host;

use super::{Worker, WorkerTaskOutcome};
use crate::scoreboard::WorkKind;

/// The stop of a worker.
#[derive(Debug)]
pub(super) struct StopRequest {
    began: Instant,
    /// How long requests in flight may take to finish, from `began`.
    timeout: Duration,
    /// The apps whose state another worker waits for. Empty after the states were requested.
    give: Vec<String>,
}

impl Worker {
    /// Begins to take the states that another worker waits for. A second call does nothing.
    pub(super) fn take_states_once(&mut self) {
        let stop_request = self.stop_request.as_mut();
        let apps = stop_request.map(|stop_request| std::mem::take(&mut stop_request.give));
        let apps = apps.unwrap_or_default();
        self.pending_states += apps.len();
        self.take_states(apps);
    }

    /// Begins the stop: accepts no more connections, begins to end the open connections, and notifies the apps. `give`
    /// lists the apps whose state another worker waits for. A second call does nothing.
    ///
    /// The states are taken when no connection can bring another request, and at the latest after the handover timeout.
    pub(super) fn stop(&mut self, timeout: Duration, shared: bool, give: Vec<String>) {
        if self.stop_request.is_some() {
            return;
        }
        self.stop_request = Some(StopRequest {
            began: Instant::now(),
            timeout,
            give,
        });
        for generation in self.registry.serving_generations() {
            // The author's code is notified on a blocking thread, because it may block.
            drop(generation.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        let closing = self.serving.close(timeout, shared);
        let all_requests_read = closing.clone().all_requests_read();
        let handover_timeout = self.settings.handover_timeout;
        self.tasks.spawn(async move {
            // The wait has a limit, because requests wait in the other worker until the state arrives there.
            let _ = tokio::time::timeout(handover_timeout, all_requests_read).await;
            WorkerTaskOutcome::AllRequestsRead
        });
        self.tasks.spawn(async move {
            closing.wait_closed().await;
            WorkerTaskOutcome::Disconnected
        });
    }

    /// Ends all apps, after the last connection has ended, and waits for their end. Requests that are still in flight
    /// may use the rest of the time for the stop.
    pub(super) async fn end_apps(&mut self) {
        let timeout = self.stop_request.as_ref().map_or(Duration::ZERO, |stop| {
            stop.timeout.saturating_sub(stop.began.elapsed())
        });
        for (name, mut app) in std::mem::take(&mut self.apps) {
            self.registry.remove(&name);
            for loading in std::mem::take(&mut app.loading).into_values() {
                // Loads are aborted, because the apps would have no requests to serve.
                loading.task.abort();
            }
            self.end_app(app, timeout);
        }
        // Other results, such as those of reports, may arrive in between.
        while !self.retiring.is_empty() {
            match self.tasks.join_next().await {
                Some(outcome) => self.handle_outcome(outcome),
                None => break,
            };
        }
    }
}
