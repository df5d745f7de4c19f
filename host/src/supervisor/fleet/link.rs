//! The connection from the supervisor to one worker.

use std::sync::{Arc, OnceLock};

use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::{channel::Sender, orders::Order, supervisor::output_tail::OutputTail};

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
    /// Signals for the process. The task that watches the process sends them.
    pub kill: mpsc::UnboundedSender<Signal>,
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
            let _ = process.kill.send(signal);
        }
    }
}
