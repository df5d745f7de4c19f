//! The connection from the supervisor to one worker.

use std::sync::{Arc, OnceLock};

use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::{channel::Sender, orders::Order, supervisor::last_words::LastWords};

/// The way to a worker.
#[derive(Clone, Debug)]
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    /// The way to its process; none when the worker is a task of this one.
    pub(super) process: Option<Process>,
}

/// The process of a worker.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number; none when it could not be started.
    pub pid: Option<i32>,
    /// The channel to it, once that is open.
    pub channel: Arc<OnceLock<Sender<Order>>>,
    /// What it prints.
    pub words: Option<LastWords>,
    /// Where signals for it go.
    pub kill: mpsc::UnboundedSender<Signal>,
}

impl Link {
    /// The way to a worker that is a task of this process.
    #[must_use]
    pub fn local(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self {
            orders,
            process: None,
        }
    }

    /// The way to a worker that is a process of its own.
    #[must_use]
    pub fn process(orders: mpsc::UnboundedSender<Order>, process: Process) -> Self {
        Self {
            orders,
            process: Some(process),
        }
    }

    /// Tells the worker. One that is gone is known to be by other ways.
    pub(super) fn send(&self, order: Order) {
        let channel = self
            .process
            .as_ref()
            .and_then(|process| process.channel.get());
        match channel {
            // Nothing may wait in this process when another image of it goes on.
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
