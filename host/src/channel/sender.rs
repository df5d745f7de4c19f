//! The half of a channel that sends: a queue without a bound, and the task that writes it.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::Arc,
};

use serde::Serialize;
use tokio::io::Interest;

use super::{
    Frozen, MAX_DESCRIPTORS, MAX_FRAME, SharedSocket,
    wire::{HEADER_LEN, QueuedFrame},
};

/// Sends messages of the type `Out`. Clones send on the same channel, from any thread, each message
/// whole.
#[derive(Debug)]
pub struct Sender<Out> {
    open: Arc<SenderGuard>,
    sends: PhantomData<fn(Out)>,
}

impl<Out: Serialize> Sender<Out> {
    /// Puts a message into the queue, and never waits.
    ///
    /// # Errors
    ///
    /// Fails when the other side is gone, or the message is too long or cannot be JSON.
    pub fn send(&self, message: &Out) -> Result<(), SendError> {
        self.send_with(message, Vec::new())
    }

    /// Puts a message with descriptors into the queue, and never waits. The descriptors are closed
    /// here when they are sent.
    ///
    /// # Errors
    ///
    /// Fails when the other side is gone, the message is too long or cannot be JSON, or the
    /// descriptors are more than [`MAX_DESCRIPTORS`].
    pub fn send_with(&self, message: &Out, descriptors: Vec<OwnedFd>) -> Result<(), SendError> {
        self.send_any(message, descriptors)
    }
}

impl<Out> Sender<Out> {
    /// Starts the task that writes. Runs in a tokio runtime.
    pub(super) fn start(shared: Arc<SharedSocket>) -> Self {
        tokio::spawn(write(Arc::clone(&shared)));
        Self {
            open: Arc::new(SenderGuard(shared)),
            sends: PhantomData,
        }
    }

    pub(super) fn send_any(
        &self,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), SendError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(SendError::Descriptors(descriptors.len()));
        }
        let mut bytes = vec![0; HEADER_LEN];
        serde_json::to_writer(&mut bytes, message).map_err(SendError::Encode)?;
        let len = bytes.len() - HEADER_LEN;
        match u32::try_from(len) {
            Ok(head) if len <= MAX_FRAME => {
                bytes[..HEADER_LEN].copy_from_slice(&head.to_le_bytes())
            }
            _ => return Err(SendError::TooLong(len)),
        }
        let shared = self.shared();
        // The lock is held while `gone` is asked, because the writer empties the queue under it.
        let mut writing = shared.writing();
        if shared.gone.is_cancelled() {
            return Err(SendError::Gone);
        }
        writing.queue.push_back(QueuedFrame {
            bytes,
            sent: 0,
            descriptors,
        });
        drop(writing);
        shared.wake.notify_one();
        Ok(())
    }

    /// Returns how many bytes wait to be written: a growing number means that the other side stands
    /// still.
    #[must_use]
    pub fn pending(&self) -> usize {
        let left = |frame: &QueuedFrame| frame.bytes.len() - frame.sent;
        self.shared().writing().queue.iter().map(left).sum()
    }

    /// Waits until all that was sent is written to the socket, or the other side is gone. What is
    /// written is read by the other side even when this process ends right after.
    pub async fn flush(&self) {
        let shared = self.shared();
        loop {
            let mut drained = pin!(shared.drained.notified());
            drained.as_mut().enable();
            if shared.writing().queue.is_empty() {
                return;
            }
            drained.await;
        }
    }

    /// Returns whether the other side is gone, as far as the channel has noticed: the
    /// [`super::Receiver`] notices while it is read, the writer when it writes.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared().gone.is_cancelled()
    }

    /// Waits until the other side is gone.
    pub async fn gone(&self) {
        self.shared().gone.cancelled().await;
    }

    /// Stops all reading and writing of the channel until the result is dropped, so that what is
    /// unread and unsent can be handed to another image of this process. Senders and the receiver
    /// block meanwhile: no await may happen in between.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        Frozen::new(self.shared())
    }

    pub(super) fn shared(&self) -> &SharedSocket {
        &self.open.0
    }
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self {
            open: Arc::clone(&self.open),
            sends: PhantomData,
        }
    }
}

/// Exists as long as one sender does.
#[derive(Debug)]
struct SenderGuard(Arc<SharedSocket>);

impl Drop for SenderGuard {
    fn drop(&mut self) {
        self.0.writing().is_closed = true;
        self.0.wake.notify_one();
    }
}

/// Writes what senders put into the queue, until all of them are dropped and all is written, or the
/// other side is gone.
async fn write(shared: Arc<SharedSocket>) {
    let written = async {
        loop {
            while !shared.writing().queue.is_empty() {
                write_some(&shared).await?;
            }
            shared.drained.notify_waiters();
            if shared.writing().is_closed {
                return Ok::<(), io::Error>(());
            }
            shared.wake.notified().await;
        }
    };
    let is_done = tokio::select! {
        written = written => written.is_ok(),
        () = shared.gone.cancelled() => false,
    };
    if is_done {
        return;
    }
    // Whatever the error is (EPIPE, ECONNRESET), this socket takes no more.
    let mut writing = shared.writing();
    shared.gone.cancel();
    writing.queue.clear();
    drop(writing);
    shared.drained.notify_waiters();
}

async fn write_some(shared: &SharedSocket) -> io::Result<()> {
    shared.socket.writable().await?;
    let mut writing = shared.writing();
    let flush = || writing.flush(shared.socket.as_fd());
    match shared.socket.try_io(Interest::WRITABLE, flush) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        flushed => flushed,
    }
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A message with too many descriptors.
    #[error("a message has {0} descriptors, more than {MAX_DESCRIPTORS}")]
    Descriptors(usize),
    /// A message that cannot be JSON.
    #[error("a message cannot be written")]
    Encode(#[source] serde_json::Error),
    /// The other side is gone.
    #[error("the other process is gone")]
    Gone,
    /// A message longer than [`MAX_FRAME`].
    #[error("a message is {0} bytes long, more than {MAX_FRAME}")]
    TooLong(usize),
}
