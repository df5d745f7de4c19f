//! A generation: one load of one app.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use plugin_api::host::App;
use tokio::{
    task::{self, JoinHandle},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::faults::Faults;
use crate::{
    orders::Spec,
    resources,
    scoreboard::{self, Label, WorkKind},
};

/// A loaded app.
#[derive(Debug)]
pub struct Generation {
    /// The app's name.
    pub name: &'static str,
    /// The number of this load of the app, from 1.
    pub number: u64,
    /// The plugin's version.
    pub version: String,
    /// The spec of the generation.
    pub spec: Arc<Spec>,
    /// The path of the private copy from which the library was loaded.
    pub staged_path: PathBuf,
    /// The label of the generation on the scoreboard. Threads write the label there while they run code of the app.
    pub label: Label,
    /// The app in the library. Counts the requests in flight.
    pub app: &'static App,
    /// Counts errors and panics.
    pub faults: Arc<Faults>,
    /// When the generation was started.
    pub started_at: SystemTime,
    /// Cancelled at the end of a drain, to abort the requests that are still in flight.
    pub abort: CancellationToken,
}

/// The result of a drain.
#[derive(Clone, Copy, Debug)]
pub struct DrainResult {
    /// How long the last requests took to end.
    pub duration: Duration,
    /// The number of requests that were aborted.
    pub aborted: u64,
}

impl Generation {
    /// Ends the generation: closes the app to new requests, waits up to `timeout` for the requests in flight, aborts
    /// the rest, runs the shutdown hooks, and stops the threads of the app. The registry must not route to this
    /// generation any more.
    pub async fn retire(self: Arc<Self>, timeout: Duration) -> DrainResult {
        self.app.close();
        // The author's code is notified on a blocking thread, because it may block.
        let notified = self.spawn_in_app(WorkKind::Drain, App::drain);
        let drain_result = self.drain(timeout).await;
        // The notification must be over before the app is stopped.
        let _ = notified.await;
        // The plugin catches panics of the author's code, so this task does not fail.
        let stopped = self.spawn_in_app(WorkKind::Stop, |app| app.stop(STOP_TIMEOUT));
        let stopped = stopped.await.unwrap_or_default();
        let (plugin, generation) = (self.name, self.number);
        if stopped.timed_out {
            warn!(plugin, generation, timeout = ?STOP_TIMEOUT, "A shutdown hook did not end in time");
        }
        // Requests whose handlers block their threads are still in flight after the abort.
        let stuck = self.app.in_flight();
        if stuck > 0 {
            warn!(
                plugin,
                generation, stuck, "Requests are stuck, and keep their memory and threads"
            );
        }
        let name = thread_name(plugin, generation);
        let threads = count_threads_left(&name).await;
        if threads > 0 {
            warn!(
                plugin,
                generation, threads, name, "Threads of it are still there, and keep running"
            );
        }
        info!(
            plugin,
            generation,
            cancelled_tasks = stopped.tasks,
            "Stopped"
        );
        drain_result
    }

    /// Runs code of the app on a blocking thread. The scoreboard shows this work as `kind`.
    pub fn spawn_in_app<T: Send + 'static>(
        &self,
        kind: WorkKind,
        work: impl FnOnce(&'static App) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (app, label) = (self.app, self.label);
        task::spawn_blocking(move || {
            // While this value exists, the scoreboard attributes a crash or a hang of the thread to the app.
            let _working = scoreboard::enter(label, kind);
            work(app)
        })
    }

    /// Waits up to `timeout` for the requests in flight, and aborts those that are left.
    async fn drain(&self, timeout: Duration) -> DrainResult {
        let began = Instant::now();
        let in_flight = self.app.in_flight();
        let (plugin, generation) = (self.name, self.number);
        debug!(plugin, generation, in_flight, "Draining");
        let mut aborted = 0;
        if time::timeout(timeout, self.app.drained()).await.is_err() {
            aborted = self.app.in_flight();
            warn!(
                plugin,
                generation,
                in_flight = aborted,
                ?timeout,
                "Cutting off requests that did not end in time"
            );
            self.abort.cancel();
            // The wait has a limit, because a handler that blocks its thread does not notice the abort.
            let _ = time::timeout(ABORT_GRACE, self.app.drained()).await;
        }
        DrainResult {
            duration: began.elapsed(),
            aborted,
        }
    }
}

/// Returns the name of a generation's threads, such as `shop.g7`. The threads of the plugin's runtime and the thread
/// that starts the app have this name. Threads that they start inherit the name, unless the plugin names these threads.
/// The kernel stores 15 bytes of a name, so a long plugin name is truncated.
#[must_use]
pub fn thread_name(plugin: &str, generation: u64) -> String {
    let suffix = format!(".g{generation}");
    let max_len = MAX_THREAD_NAME.saturating_sub(suffix.len());
    // `get` returns `None` only for a shorter name, because the name of a plugin is ASCII.
    format!("{}{suffix}", plugin.get(..max_len).unwrap_or(plugin))
}

/// Returns the number of threads with this name that still run. Waits up to 200 ms for threads that are about to end.
async fn count_threads_left(name: &str) -> usize {
    let mut count = 0;
    for _ in 0..20 {
        let name = name.to_owned();
        let counting = task::spawn_blocking(move || resources::count_threads_named(&name));
        count = counting.await.unwrap_or_default();
        if count == 0 {
            break;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    count
}

/// The longest name of a thread in bytes (prctl(2), `PR_SET_NAME`).
const MAX_THREAD_NAME: usize = 15;

/// How long the host waits for aborted requests to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long the host waits for shutdown hooks and for the threads of the plugin's runtime to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_named_after_plugin_and_generation() {
        assert_eq!(thread_name("shop", 7), "shop.g7");
        assert_eq!(
            thread_name("a-plugin-of-a-long-name", 1234),
            "a-plugin-.g1234"
        );
        assert_eq!(thread_name("abcdefghijkl", 1), "abcdefghijkl.g1");
    }
}
