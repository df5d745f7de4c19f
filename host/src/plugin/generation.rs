//! One load of one app.

use std::{sync::Arc, time::Duration};

use plugin_api::host::App;
use tokio::{task, time};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{quarantine::Quarantine, store::Hash};

/// A loaded app.
#[derive(Debug)]
pub struct Generation {
    /// The app's name.
    pub name: &'static str,
    /// Which load of the app this is, from 1.
    pub number: u64,
    /// The plugin's version.
    pub version: String,
    /// The most verbose levels compiled into it, where some are left out.
    pub max_level: Option<String>,
    /// The library's content.
    pub hash: Hash,
    /// The app itself.
    pub app: Arc<App>,
    /// Whether it panicked too often.
    pub quarantine: Arc<Quarantine>,
    /// Cancelled when the requests that are still in it are to be cut off.
    pub cut: CancellationToken,
}

impl Generation {
    /// Lets no more requests in, waits for those that are in it for at most `patience`, cuts off
    /// what is left then, and ends the app. The registry must not name this generation any more.
    pub async fn retire(self: Arc<Self>, patience: Duration) {
        self.app.close();
        let in_flight = self.app.in_flight();
        let (plugin, generation) = (self.name, self.number);
        debug!(plugin, generation, in_flight, "Draining");
        if time::timeout(patience, self.app.drained()).await.is_err() {
            let in_flight = self.app.in_flight();
            warn!(
                plugin,
                generation,
                in_flight,
                ?patience,
                "Cutting off requests that did not end in time"
            );
            self.cut.cancel();
            // A handler that blocks its thread hears nothing of this.
            let _ = time::timeout(CUT, self.app.drained()).await;
        }
        let app = Arc::clone(&self.app);
        let Ok(stopped) = task::spawn_blocking(move || app.stop(STOP)).await else {
            return;
        };
        let stuck = self.app.in_flight();
        if stopped.timed_out {
            warn!(plugin, generation, timeout = ?STOP, "A shutdown hook did not end in time");
        }
        if stuck > 0 {
            warn!(
                plugin,
                generation, stuck, "Requests are stuck, and keep their memory and threads"
            );
        }
        info!(
            plugin,
            generation,
            cancelled_tasks = stopped.tasks,
            "Stopped"
        );
    }
}

/// How long requests have to notice that they are cut off.
const CUT: Duration = Duration::from_secs(1);

/// How long an app has for its shutdown hooks, and its runtime's threads to end.
const STOP: Duration = Duration::from_secs(5);
