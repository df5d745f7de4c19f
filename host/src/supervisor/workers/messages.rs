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

/// Opens the channel to the process, sends the setup and the queued orders, and then relays messages.
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
        Err(error) => return log_broken_channel(events.0, &error),
    };
    let (sender, receiver) = channel.split();
    // A failure is ignored, because the exit of the process is reported by its watch.
    let _ = sender.send_with(&setup, descriptors);
    drop(setup);
    while let Ok(order) = order_receiver.try_recv() {
        let _ = sender.send(&order);
    }
    // From now on the supervisor sends orders directly to the channel.
    let _ = opened.set(sender.clone());
    drop(opened);
    relay(sender, receiver, order_receiver, events).await;
}

/// Relays notices to the supervisor until the channel ends or the supervisor drops the worker. Orders
/// that were queued before the channel was open are relayed to the worker.
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
                None => return sender.flush().await,
            },
            notice = receiver.recv() => match notice {
                Ok(Some((notice, _))) => events.send(WorkerEvent::Notice(notice)),
                Ok(None) => return,
                Err(error) => return log_broken_channel(events.0, &error),
            },
        }
    }
}

fn log_broken_channel(worker: WorkerId, error: &ChannelError) {
    if !matches!(error, ChannelError::NoHello) {
        let error = error as &dyn std::error::Error;
        error!(worker, error, "The channel to a worker failed");
    }
}
