//! Handles a shortage of resources for new connections, such as descriptors: the accept loop waits and tries again. The
//! log gets one line when a shortage begins, and one line when the shortage ends.

use std::{io, time::Duration};

use tokio::time::{self, Instant};
use tracing::{info, warn};

/// The state of an accept loop: whether a shortage exists, and since when.
#[derive(Debug)]
pub struct Shortage {
    /// The name of the accepted connections in log lines, such as "control connections".
    name: &'static str,
    /// When the shortage began. `None` while connections can be accepted.
    began_at: Option<Instant>,
    /// The number of failed attempts to accept since the shortage began.
    failures: u64,
}

impl Shortage {
    /// Returns the state without a shortage. `name` is the name of the accepted connections in log lines.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            began_at: None,
            failures: 0,
        }
    }

    /// Waits until the next attempt to accept. Must be called after an attempt has failed with `error`. The first call
    /// begins the shortage and logs it.
    pub async fn wait(&mut self, error: &io::Error) {
        if self.began_at.is_none() {
            self.began_at = Some(Instant::now());
            warn!(%error, "Cannot accept {}, trying again until that is over", self.name);
        }
        self.failures += 1;
        // Without the pause the loop would fail again at once and use a whole processor: the connection stays in the
        // queue of the listener, so the listener stays ready.
        time::sleep(RETRY_PAUSE).await;
    }

    /// Ends the shortage and logs its end. Does nothing if no shortage exists. Must be called after a connection was
    /// accepted.
    pub fn end(&mut self) {
        if let Some(began_at) = self.began_at.take() {
            let (took, failures) = (began_at.elapsed(), std::mem::take(&mut self.failures));
            info!(?took, failures, "Accepting {} again", self.name);
        }
    }
}

/// The pause between two attempts to accept.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
