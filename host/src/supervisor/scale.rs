//! Changes the number of worker processes while the server runs.

use serde::Serialize;
use tracing::info;

use super::{Supervisor, error::CommandError};
use crate::config::MAX_WORKERS;

/// The requested number of worker processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Exactly this number.
    To(usize),
    /// One more than the current target number.
    Up,
    /// One less than the current target number.
    Down,
}

/// The report of a change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScaleReport {
    /// The new target number.
    pub workers: usize,
    /// The old target number.
    pub was: usize,
}

impl Supervisor {
    /// Changes the target number. Starts missing workers, or orders surplus workers to stop: they accept no more
    /// connections and finish their requests.
    ///
    /// # Errors
    ///
    /// When the server has no worker processes, or when the number is out of range.
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
        if !(1..=usize::from(MAX_WORKERS)).contains(&wanted) {
            return Err(CommandError::WorkerCount { wanted, was });
        }
        self.wanted_workers = wanted;
        if let Some(spawner) = &mut self.spawner {
            // From now on the log lines of new workers contain the number of the worker.
            spawner.has_several_workers |= wanted > 1;
        }
        if wanted != was {
            info!(workers = wanted, was, "Number of workers changed");
        }
        // Workers that are stopping already do not count.
        let surplus = self.staying_workers().saturating_sub(wanted);
        // The old and the new worker of a replacement under way are not stopped, because one of them exits anyway.
        let current = self.recycling.current.as_ref();
        let recycled = current.map(|current| [current.old, current.new]);
        let except = recycled.as_ref().map_or(&[][..], |both| both);
        for worker in self.fleet.least_needed(surplus, except) {
            let timeout = self.graceful_timeout;
            self.fleet.stop_replaced(worker, timeout, Vec::new());
        }
        self.start_missing_workers();
        Ok(ScaleReport {
            workers: wanted,
            was,
        })
    }

    /// Returns the number of workers that have no order to stop. The old and the new worker of a replacement under way
    /// count as one.
    pub(super) fn staying_workers(&self) -> usize {
        let current = self.recycling.current.as_ref();
        let is_double = current.is_some_and(|current| {
            self.fleet.is_staying(current.old) && self.fleet.is_staying(current.new)
        });
        self.fleet.staying_count() - usize::from(is_double)
    }
}
