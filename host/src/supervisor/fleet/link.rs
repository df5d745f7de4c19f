//! The connection from the supervisor to one worker.

use std::sync::{Arc, OnceLock};

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::{
    channel::Sender,
    orders::Order,
    supervisor::{output_tail::OutputTail, workers::watch::WatchRequest},
};

/// The connection to a worker.
#[derive(Clone, Debug)]
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    /// The worker's process. `None` when the worker is a task of this process.
    pub(super) process: Option<WorkerProcess>,
}

/// The process of a worker.
#[derive(Clone, Debug)]
pub struct WorkerProcess {
    /// The process number. `None` when the process could not be started.
    pub pid: Option<i32>,
    /// The channel to the process, once both sides have said hello.
    pub channel: Arc<OnceLock<Sender<Order>>>,
    /// Reads what the process prints.
    pub words: Option<OutputTail>,
    /// Requests to the task that watches the process.
    pub watch: mpsc::UnboundedSender<WatchRequest>,
}

impl Link {
    /// Creates the connection to a worker that is a task of this process.
    #[must_use]
    pub fn local(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self {
            orders,
            process: None,
        }
    }

    /// Creates the connection to a worker process.
    #[must_use]
    pub fn process(orders: mpsc::UnboundedSender<Order>, process: WorkerProcess) -> Self {
        Self {
            orders,
            process: Some(process),
        }
    }

    /// Sends an order. A failure is ignored, because the exit of the worker is reported separately.
    pub(super) fn send(&self, order: Order) {
        let channel = self
            .process
            .as_ref()
            .and_then(|process| process.channel.get());
        match channel {
            // Once the channel is open, orders must not wait in a queue of this process: an upgrade would
            // lose them. The channel's own queue is handed to the next image.
            Some(channel) => {
                let _ = channel.send(&order);
            }
            None => {
                let _ = self.orders.send(order);
            }
        }
    }

    /// Sends a signal to the worker's process, if it has one of its own.
    pub(super) fn kill(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // A process that has ended needs no signal.
            let _ = process.watch.send(WatchRequest::Kill(signal));
        }
    }

    /// Has the worker's process log where its threads are, if it has one of its own. The result is ready when the lines are
    /// written, and an error when there is no such process.
    pub(super) fn dump(&self) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        if let Some(process) = &self.process {
            // A process that has ended has no threads.
            let _ = process.watch.send(WatchRequest::Dump(reply));
        }
        done
    }
}
