//! Another number of worker processes, while the server runs.

use serde::Serialize;
use tracing::info;

use super::{Supervisor, error::CommandError};
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
pub struct ScaleReport {
    /// How many workers there are to be from now on.
    pub workers: usize,
    /// How many there were to be before.
    pub was: usize,
}

impl Supervisor {
    /// Starts the workers that are missing, or tells those that are too many to end: these accept no
    /// more connections and finish their requests first.
    pub(super) fn scale(&mut self, scale: Scale) -> Result<ScaleReport, CommandError> {
        if self.spawner.is_none() {
            return Err(CommandError::OneProcess);
        }
        let was = self.wanted_workers;
        let wanted = match scale {
            Scale::To(count) => count,
            Scale::Up => was + 1,
            Scale::Down => was.saturating_sub(1),
        };
        if !(1..=usize::from(MOST_WORKERS)).contains(&wanted) {
            return Err(CommandError::WorkerCount { wanted, was });
        }
        self.wanted_workers = wanted;
        if let Some(workers) = &mut self.spawner {
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
        let except = recycled.as_ref().map_or(&[][..], |both| both);
        for worker in self.fleet.least_needed(too_many, except) {
            let timeout = self.graceful_timeout;
            self.fleet.stop_replaced(worker, timeout, Vec::new());
        }
        self.start_missing_workers();
        Ok(ScaleReport {
            workers: wanted,
            was,
        })
    }

    /// How many workers there are that were not told to stop. One that is being recycled and the one
    /// that takes its place count as one.
    pub(super) fn staying(&self) -> usize {
        let current = self.recycling.current.as_ref();
        let is_double = current.is_some_and(|current| {
            self.fleet.is_staying(current.old) && self.fleet.is_staying(current.new)
        });
        self.fleet.staying_count() - usize::from(is_double)
    }
}
