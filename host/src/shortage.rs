//! What an accept loop does while the system has no room for a connection: it waits, and says so once
//! at the beginning and once at the end.

use std::{io, time::Duration};

use tokio::time::{self, Instant};
use tracing::{info, warn};

/// A time in which the system has no room for connections, or the time until then.
#[derive(Debug)]
pub struct Shortage {
    /// What cannot be accepted, in the plural.
    what: &'static str,
    /// When the shortage began. None where there is none.
    began: Option<Instant>,
    /// How often accepting has failed since.
    failures: u64,
}

impl Shortage {
    /// No shortage yet. `what` names what is accepted, in the plural.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            began: None,
            failures: 0,
        }
    }

    /// Accepting failed by `error`. Returns when it may be tried again.
    pub async fn wait(&mut self, error: &io::Error) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            warn!(%error, "Cannot accept {}, trying again until that is over", self.what);
        }
        self.failures += 1;
        time::sleep(BACK_OFF).await;
    }

    /// Accepting went well.
    pub fn over(&mut self) {
        if let Some(began) = self.began.take() {
            let (took, failures) = (began.elapsed(), std::mem::take(&mut self.failures));
            info!(?took, failures, "Accepting {} again", self.what);
        }
    }
}

/// How long to wait when the system has no room for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);
