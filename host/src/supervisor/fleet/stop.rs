//! The end of workers: told to stop, or killed.

use std::time::Duration;

use rustix::process::Signal;

use super::Fleet;
use crate::{orders::Order, supervisor::app::WorkerId};

impl Fleet {
    /// Tells a worker to end, as another one has taken its place and waits for the state of the apps
    /// `give`.
    pub(in crate::supervisor) fn leave(
        &mut self,
        id: WorkerId,
        patience: Duration,
        give: Vec<String>,
    ) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                patience,
                shared: true,
                give,
            });
        }
    }

    /// Tells a worker to end.
    fn stop(&mut self, id: WorkerId, patience: Duration) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                patience,
                shared: false,
                give: Vec::new(),
            });
        }
    }

    /// Ends a worker at once.
    pub(in crate::supervisor) fn end(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.is_killed = true;
            worker.link.kill(Signal::KILL);
        }
    }

    /// Tells all workers to end.
    pub(in crate::supervisor) fn stop_all(&mut self, patience: Duration) {
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.stop(id, patience);
        }
    }

    /// Sends a signal to the processes of all workers.
    pub(in crate::supervisor) fn kill_all(&self, signal: Signal) {
        for worker in self.workers.values() {
            worker.link.kill(signal);
        }
    }
}
