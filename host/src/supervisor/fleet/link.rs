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
    /// Queues orders for the task that relays them. Unused after the channel to a worker process is open.
    orders: mpsc::UnboundedSender<Order>,
    /// The worker's process. `None` when the worker is a task of this process.
    pub(super) process: Option<WorkerProcess>,
}

/// The process of a worker.
#[derive(Clone, Debug)]
pub struct WorkerProcess {
    /// The process number. `None` when the process could not be started.
    pub pid: Option<i32>,
    /// The channel to the process. Empty until both sides have exchanged their hellos.
    pub channel: Arc<OnceLock<Sender<Order>>>,
    /// Reads the stdout and stderr of the process. `None` if the process could not be started.
    pub output: Option<OutputTail>,
    /// Sends requests to the task that watches the process.
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

    /// Sends a signal to the worker's process. Does nothing if the worker is a task of this process.
    pub(super) fn kill(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // A failure means that the process has exited, and needs no signal.
            let _ = process.watch.send(WatchRequest::Kill(signal));
        }
    }

    /// Logs the backtraces of all threads of the worker's process. The receiver gets a value when the lines are
    /// written, or an error if the worker is a task of this process or its process has exited.
    pub(super) fn dump(&self) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        if let Some(process) = &self.process {
            // A failure means that the process has exited, and has no threads.
            let _ = process.watch.send(WatchRequest::Dump(reply));
        }
        done
    }
}
