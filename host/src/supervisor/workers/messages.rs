//! The messages to and from one worker process.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;
use tracing::error;

use super::{Event, Events};
use crate::{
    channel::{Channel, ChannelError, Hello, Receiver, Sender},
    orders::{Notice, Order},
    supervisor::app::WorkerId,
};

/// Sends orders to the process, and passes on what it tells.
pub(super) async fn talk(
    socket: OwnedFd,
    hello: Hello,
    (setup, descriptors): (Order, Vec<OwnedFd>),
    mut ordered: mpsc::UnboundedReceiver<Order>,
    opened: Arc<OnceLock<Sender<Order>>>,
    events: Events,
) {
    let channel: Channel<Order, Notice> = match Channel::open(socket, &hello).await {
        Ok(channel) => channel,
        Err(error) => return say_broken(events.0, &error),
    };
    let (sender, receiver) = channel.split();
    // A worker that is gone is told of by the end of its process.
    let _ = sender.send_with(&setup, descriptors);
    drop(setup);
    while let Ok(order) = ordered.try_recv() {
        let _ = sender.send(&order);
    }
    // Orders take the short way from now on.
    let _ = opened.set(sender.clone());
    drop(opened);
    listen(sender, receiver, ordered, events).await;
}

/// Passes on what the process tells, until nobody needs the worker any more.
pub(super) async fn listen(
    sender: Sender<Order>,
    mut receiver: Receiver<Notice>,
    mut ordered: mpsc::UnboundedReceiver<Order>,
    events: Events,
) {
    loop {
        tokio::select! {
            order = ordered.recv() => match order {
                Some(order) => {
                    let _ = sender.send(&order);
                }
                None => return sender.flush().await,
            },
            notice = receiver.recv() => match notice {
                Ok(Some((notice, _))) => events.send(Event::Notice(notice)),
                Ok(None) => return,
                Err(error) => return say_broken(events.0, &error),
            },
        }
    }
}

fn say_broken(worker: WorkerId, error: &ChannelError) {
    if !matches!(error, ChannelError::NoHello) {
        let error = error as &dyn std::error::Error;
        error!(worker, error, "The channel to a worker failed");
    }
}
