//! The end of workers: told to stop, or killed.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;

use super::Fleet;
use crate::{orders::Order, supervisor::app::WorkerId};

impl Fleet {
    /// Orders a worker to stop because another one has taken its place. `give` lists the apps whose state
    /// the other worker waits for.
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

    /// Orders a worker to stop at the end of the server: nobody else accepts its connections.
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

    /// Kills a worker.
    pub(in crate::supervisor) fn kill(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
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

    /// Has all worker processes log where their threads are. Each result is ready when the lines of one are written.
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
