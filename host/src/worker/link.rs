//! The worker's ends of the connection to the supervisor: [`Orders`] receives orders, and [`Notices`] sends notices.

use tokio::sync::mpsc;

use crate::orders::{Notice, Order};

/// Receives the orders for a worker.
#[derive(Debug)]
pub struct Orders {
    receiver: mpsc::UnboundedReceiver<Order>,
    /// Whether the supervisor is disconnected, so that no order will arrive any more.
    is_closed: bool,
}

impl Orders {
    /// Creates a receiver of orders from a channel within this process.
    #[must_use]
    pub fn new(receiver: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            receiver,
            is_closed: false,
        }
    }

    /// Waits for the next order. Returns `None` when the supervisor is disconnected.
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

/// Sends the notices of a worker. All clones send to the same supervisor.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::UnboundedSender<Notice>);

impl Notices {
    /// Creates a sender of notices into a channel within this process.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<Notice>) -> Self {
        Self(sender)
    }

    /// Sends a notice. Does nothing when the supervisor is disconnected.
    pub fn send(&self, notice: Notice) {
        let _ = self.0.send(notice);
    }
}
