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

use super::{faults::Faults, process};
use crate::{
    orders::Spec,
    scoreboard::{self, Label, WorkKind},
};

/// A loaded app.
#[derive(Debug)]
pub struct Generation {
    /// The app's name.
    pub name: &'static str,
    /// Which load of the app this is, from 1.
    pub number: u64,
    /// The plugin's version.
    pub version: String,
    /// The spec of the generation.
    pub spec: Arc<Spec>,
    /// The private copy that the library was loaded from.
    pub copy: PathBuf,
    /// The generation's label on the scoreboard.
    pub label: Label,
    /// The app behind the ABI, which also counts the requests in flight.
    pub app: &'static App,
    /// Counts errors and panics.
    pub faults: Arc<Faults>,
    /// When the generation was started.
    pub since: SystemTime,
    /// Cancelled to abort the requests that are still in flight.
    pub abort: CancellationToken,
}

/// The result of a drain.
#[derive(Clone, Copy, Debug)]
pub struct DrainResult {
    /// How long the last requests took to end.
    pub drained: Duration,
    /// The number of requests that were aborted.
    pub aborted: u64,
}

impl Generation {
    /// Ends the generation: lets no more requests in, drains it for up to `timeout`, aborts the rest, runs the
    /// shutdown hooks, and stops its threads. The registry must not route to this generation any more.
    pub async fn retire(self: Arc<Self>, timeout: Duration) -> DrainResult {
        self.app.close();
        // The author's code is notified on a blocking thread, because it may block.
        let told = self.spawn_in_app(WorkKind::Drain, App::drain);
        let retired = self.drain(timeout).await;
        let _ = told.await;
        // The plugin catches panics of the author's code, so this task does not fail.
        let stopped = self.spawn_in_app(WorkKind::Stop, |app| app.stop(STOP_TIMEOUT));
        let stopped = stopped.await.unwrap_or_default();
        let (plugin, generation) = (self.name, self.number);
        if stopped.timed_out {
            warn!(plugin, generation, timeout = ?STOP_TIMEOUT, "A shutdown hook did not end in time");
        }
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
        retired
    }

    /// Runs code of the app on a blocking thread, marked on the scoreboard as `doing`.
    pub fn spawn_in_app<T: Send + 'static>(
        &self,
        doing: WorkKind,
        work: impl FnOnce(&'static App) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (app, label) = (self.app, self.label);
        task::spawn_blocking(move || {
            let _working = scoreboard::enter(label, doing);
            work(app)
        })
    }

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
            // A handler that blocks its thread does not notice the abort.
            let _ = time::timeout(ABORT_GRACE, self.app.drained()).await;
        }
        DrainResult {
            drained: began.elapsed(),
            aborted,
        }
    }
}

/// Returns the name of a generation's threads: those of its runtime, that of its start, and threads that these
/// start, unless the plugin names them otherwise. The kernel keeps 15 bytes, so a long plugin name is cut.
#[must_use]
pub fn thread_name(plugin: &str, generation: u64) -> String {
    let suffix = format!(".g{generation}");
    let room = MAX_THREAD_NAME.saturating_sub(suffix.len());
    // The name of a plugin is ASCII.
    format!("{}{suffix}", plugin.get(..room).unwrap_or(plugin))
}

/// Returns how many threads with this name are left, after threads that are about to end had time to.
async fn count_threads_left(name: &str) -> usize {
    let mut there = 0;
    for _ in 0..20 {
        let of_it = name.to_owned();
        let threads = task::spawn_blocking(move || process::threads_named(&of_it));
        there = threads.await.unwrap_or_default();
        if there == 0 {
            break;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    there
}

/// The longest name of a thread in bytes (prctl(2), `PR_SET_NAME`).
const MAX_THREAD_NAME: usize = 15;

/// How long aborted requests have to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long shutdown hooks and the runtime's threads have to end.
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
