//! The messages to and from one worker process.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;
use tracing::error;

use super::{EventSender, WorkerEvent};
use crate::{
    channel::{Channel, ChannelError, Hello, Receiver, Sender},
    orders::{Notice, Order},
    supervisor::app::WorkerId,
};

/// Opens the channel to the process, sends the setup and the queued orders, and then relays messages. `opened` gets the
/// sender of the channel after the queued orders were sent.
pub(super) async fn open_and_relay(
    socket: OwnedFd,
    hello: Hello,
    (setup, descriptors): (Order, Vec<OwnedFd>),
    mut order_receiver: mpsc::UnboundedReceiver<Order>,
    opened: Arc<OnceLock<Sender<Order>>>,
    events: EventSender,
) {
    let channel: Channel<Order, Notice> = match Channel::open(socket, &hello).await {
        Ok(channel) => channel,
        Err(error) => return log_broken_channel(events.worker, &error),
    };
    let (sender, receiver) = channel.split();
    // A failure to send is ignored, because `watch` reports the exit of the process.
    let _ = sender.send_with(&setup, descriptors);
    drop(setup);
    // The queued orders are sent before later orders can reach the channel: no await follows until `set`, and the
    // supervisor runs on the same thread, so it cannot queue another order in between.
    while let Ok(order) = order_receiver.try_recv() {
        let _ = sender.send(&order);
    }
    // From now on the supervisor sends orders directly to the channel.
    let _ = opened.set(sender.clone());
    drop(opened);
    relay(sender, receiver, order_receiver, events).await;
}

/// Relays notices to the supervisor, and queued orders to the worker. Returns when the channel has ended, or when the
/// supervisor has dropped the connection to the worker.
pub(super) async fn relay(
    sender: Sender<Order>,
    mut receiver: Receiver<Notice>,
    mut order_receiver: mpsc::UnboundedReceiver<Order>,
    events: EventSender,
) {
    loop {
        tokio::select! {
            order = order_receiver.recv() => match order {
                Some(order) => {
                    let _ = sender.send(&order);
                }
                // Orders in the queue of the channel must still be written.
                None => return sender.flush().await,
            },
            notice = receiver.recv() => match notice {
                Ok(Some((notice, _))) => events.send(WorkerEvent::Notice(notice)),
                Ok(None) => return,
                Err(error) => return log_broken_channel(events.worker, &error),
            },
        }
    }
}

/// Logs an error of the channel. A process that exits before it has sent a hello is not logged here, because `watch`
/// reports the exit.
fn log_broken_channel(worker: WorkerId, error: &ChannelError) {
    if !matches!(error, ChannelError::NoHello) {
        let error = error as &dyn std::error::Error;
        error!(worker, error, "The channel to a worker failed");
    }
}
