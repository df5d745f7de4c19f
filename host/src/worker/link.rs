//! The two ends of the way between a supervisor and a worker that is a task of the same process.

use tokio::sync::mpsc;

use crate::orders::{Notice, Order};

/// Where a worker's orders come from.
#[derive(Debug)]
pub struct Orders {
    receiver: mpsc::UnboundedReceiver<Order>,
    is_closed: bool,
}

impl Orders {
    /// Orders that come out of a channel of this process.
    #[must_use]
    pub fn new(receiver: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            receiver,
            is_closed: false,
        }
    }

    /// The next order; none when the supervisor is gone.
    pub async fn recv(&mut self) -> Option<Order> {
        let order = self.receiver.recv().await;
        self.is_closed = order.is_none();
        order
    }

    /// Whether [`recv`](Self::recv) said that the supervisor is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// Where a worker's notices go. A clone leads to the same supervisor.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::UnboundedSender<Notice>);

impl Notices {
    /// Notices that go into a channel of this process.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<Notice>) -> Self {
        Self(sender)
    }

    /// Tells the supervisor. Without one nobody needs to know.
    pub fn send(&self, notice: Notice) {
        let _ = self.0.send(notice);
    }
}
