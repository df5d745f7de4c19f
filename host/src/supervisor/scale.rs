//! Another number of worker processes, while the server runs.

use serde::Serialize;
use tracing::info;

use super::{Supervisor, error::AskError};
use crate::config::MOST_WORKERS;

/// How many worker processes there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// So many.
    To(usize),
    /// One more than now.
    Up,
    /// One less than now.
    Down,
}

/// What came of a change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scaled {
    /// How many workers there are to be from now on.
    pub workers: usize,
    /// How many there were to be before.
    pub was: usize,
}

impl Supervisor {
    /// Starts the workers that are missing, or tells those that are too many to end: these accept no
    /// more connections and finish their requests first.
    pub(super) fn scale(&mut self, scale: Scale) -> Result<Scaled, AskError> {
        if self.workers.is_none() {
            return Err(AskError::OneProcess);
        }
        let was = self.wanted_workers;
        let wanted = match scale {
            Scale::To(count) => count,
            Scale::Up => was + 1,
            Scale::Down => was.saturating_sub(1),
        };
        if !(1..=usize::from(MOST_WORKERS)).contains(&wanted) {
            return Err(AskError::WorkerCount { wanted, was });
        }
        self.wanted_workers = wanted;
        if let Some(workers) = &mut self.workers {
            // From now on lines of new workers tell which worker wrote them.
            workers.many |= wanted > 1;
        }
        if wanted != was {
            info!(workers = wanted, was, "Another number of workers");
        }
        let too_many = self.staying().saturating_sub(wanted);
        // One of two workers that are about to become one is not taken away.
        let current = self.recycling.current.as_ref();
        let recycled = current.map(|current| [current.old, current.new]);
        let but = recycled.as_ref().map_or(&[][..], |both| both);
        for worker in self.fleet.dispensable(too_many, but) {
            let patience = self.graceful_timeout;
            self.fleet.leave(worker, patience, Vec::new());
        }
        self.hire();
        Ok(Scaled {
            workers: wanted,
            was,
        })
    }

    /// How many workers there are that were not told to stop. One that is being recycled and the one
    /// that takes its place count as one.
    pub(super) fn staying(&self) -> usize {
        let current = self.recycling.current.as_ref();
        let is_double = current.is_some_and(|current| {
            self.fleet.is_there(current.old) && self.fleet.is_there(current.new)
        });
        self.fleet.staying() - usize::from(is_double)
    }
}
