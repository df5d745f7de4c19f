//! Stops workers, by an order or by a signal.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;

use super::Fleet;
use crate::{orders::Order, supervisor::app::WorkerId};

impl Fleet {
    /// Orders a worker to stop while other workers continue to accept connections. `give` lists the apps whose state
    /// the worker must send, because a new worker waits for it.
    pub(in crate::supervisor) fn stop_replaced(
        &mut self,
        id: WorkerId,
        timeout: Duration,
        give: Vec<String>,
    ) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                timeout,
                shared: true,
                give,
            });
        }
    }

    /// Orders a worker to stop at the end of the server. No other worker accepts connections any more, so this worker
    /// also serves the connections that wait in the kernel's queue.
    fn stop(&mut self, id: WorkerId, timeout: Duration) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                timeout,
                shared: false,
                give: Vec::new(),
            });
        }
    }

    /// Kills the process of a worker.
    pub(in crate::supervisor) fn kill(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            // The worker gets no more loads from now on, and its exit is expected.
            worker.is_leaving = true;
            worker.is_killed = true;
            worker.link.kill(Signal::KILL);
        }
    }

    /// Orders all workers to stop.
    pub(in crate::supervisor) fn stop_all(&mut self, timeout: Duration) {
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.stop(id, timeout);
        }
    }

    /// Logs the backtraces of the threads of all worker processes. Returns one receiver for each worker. The receiver
    /// gets a value when the lines of that worker are written.
    pub(in crate::supervisor) fn dump_all(&self) -> Vec<oneshot::Receiver<()>> {
        let workers = self.workers.values();
        workers.map(|worker| worker.link.dump()).collect()
    }

    /// Sends a signal to the processes of all workers.
    pub(in crate::supervisor) fn kill_all(&self, signal: Signal) {
        for worker in self.workers.values() {
            worker.link.kill(signal);
        }
    }
}
