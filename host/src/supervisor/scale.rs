//! Changes the number of worker processes while the server runs.

use serde::Serialize;
use tracing::info;

use super::{Supervisor, error::CommandError};
use crate::config::MOST_WORKERS;

/// The requested number of worker processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// To a fixed number.
    To(usize),
    /// By one more.
    Up,
    /// By one less.
    Down,
}

/// The report of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScaleReport {
    /// The new target number.
    pub workers: usize,
    /// The old target number.
    pub was: usize,
}

impl Supervisor {
    /// Changes the target number. Starts missing workers, or tells surplus workers to stop: these accept no
    /// more connections, and finish their requests.
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
            // From now on log lines of new workers name the worker.
            workers.many |= wanted > 1;
        }
        if wanted != was {
            info!(workers = wanted, was, "Another number of workers");
        }
        let too_many = self.staying().saturating_sub(wanted);
        // A worker that is being replaced and its replacement are left alone: one of them exits anyway.
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

    /// Returns the number of workers that were not told to stop. A worker that is being replaced and its
    /// replacement count as one.
    pub(super) fn staying(&self) -> usize {
        let current = self.recycling.current.as_ref();
        let is_double = current.is_some_and(|current| {
            self.fleet.is_staying(current.old) && self.fleet.is_staying(current.new)
        });
        self.fleet.staying_count() - usize::from(is_double)
    }
}
