//! The worker's ends of its connection to the supervisor: orders come in, notices go out.

use tokio::sync::mpsc;

use crate::orders::{Notice, Order};

/// Receives the orders for a worker.
#[derive(Debug)]
pub struct Orders {
    receiver: mpsc::UnboundedReceiver<Order>,
    is_closed: bool,
}

impl Orders {
    /// Receives orders from a channel within this process.
    #[must_use]
    pub fn new(receiver: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            receiver,
            is_closed: false,
        }
    }

    /// Returns the next order, or `None` when the supervisor is gone.
    pub async fn recv(&mut self) -> Option<Order> {
        let order = self.receiver.recv().await;
        self.is_closed = order.is_none();
        order
    }

    /// Returns whether [`recv`](Self::recv) has returned `None`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// Sends the notices of a worker. Clones send to the same supervisor.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::UnboundedSender<Notice>);

impl Notices {
    /// Sends notices into a channel within this process.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<Notice>) -> Self {
        Self(sender)
    }

    /// Sends a notice. Does nothing when the supervisor is gone.
    pub fn send(&self, notice: Notice) {
        let _ = self.0.send(notice);
    }
}
