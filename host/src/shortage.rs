//! Waits while the system has no resources for a new connection. The log gets one line when that begins and one
//! when it is over.

use std::{io, time::Duration};

use tokio::time::{self, Instant};
use tracing::{info, warn};

/// The state of an accept loop: whether connections can be accepted.
#[derive(Debug)]
pub struct Shortage {
    /// The name of what is accepted, in the plural.
    what: &'static str,
    /// When the shortage began. None while connections can be accepted.
    began: Option<Instant>,
    /// How often accepting has failed since then.
    failures: u64,
}

impl Shortage {
    /// Returns the state without a shortage. `what` names what is accepted, in the plural.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            began: None,
            failures: 0,
        }
    }

    /// Waits after `error`, until the next attempt to accept.
    pub async fn wait(&mut self, error: &io::Error) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            warn!(%error, "Cannot accept {}, trying again until that is over", self.what);
        }
        self.failures += 1;
        time::sleep(BACK_OFF).await;
    }

    /// Ends the shortage, if there was one, because a connection was accepted.
    pub fn over(&mut self) {
        if let Some(began) = self.began.take() {
            let (took, failures) = (began.elapsed(), std::mem::take(&mut self.failures));
            info!(?took, failures, "Accepting {} again", self.what);
        }
    }
}

/// How long to wait between two attempts.
const BACK_OFF: Duration = Duration::from_millis(100);
