//! The half of a channel that sends: an unbounded queue of frames, and the task that writes the queue to the socket.

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
    FrozenChannel, MAX_DESCRIPTORS, MAX_FRAME, SharedSocket,
    wire::{HEADER_LEN, QueuedFrame},
};

/// Sends messages of the type `Out`. Clones of a sender send on the same channel. Threads may send at the same time,
/// because each message is queued as a whole.
#[derive(Debug)]
pub struct Sender<Out> {
    guard: Arc<SenderGuard>,
    message_type: PhantomData<fn(Out)>,
}

impl<Out: Serialize> Sender<Out> {
    /// Queues a message without waiting.
    ///
    /// # Errors
    ///
    /// Fails when the other side is disconnected, or when the message is too long or cannot be encoded as JSON.
    pub fn send(&self, message: &Out) -> Result<(), SendError> {
        self.send_with(message, Vec::new())
    }

    /// Queues a message with descriptors without waiting. The descriptors are closed in this process after they were
    /// sent.
    ///
    /// # Errors
    ///
    /// Fails when the other side is disconnected, when the message is too long or cannot be encoded as JSON, or when
    /// there are more than [`MAX_DESCRIPTORS`] descriptors.
    pub fn send_with(&self, message: &Out, descriptors: Vec<OwnedFd>) -> Result<(), SendError> {
        self.send_any(message, descriptors)
    }
}

impl<Out> Sender<Out> {
    /// Starts the task that writes, and returns a sender. Must be called in a tokio runtime.
    pub(super) fn start(shared: Arc<SharedSocket>) -> Self {
        tokio::spawn(write(Arc::clone(&shared)));
        Self {
            guard: Arc::new(SenderGuard(shared)),
            message_type: PhantomData,
        }
    }

    /// Queues a message of any type. The hello is sent by this function, because the hello is not of the type `Out`.
    pub(super) fn send_any(
        &self,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), SendError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(SendError::Descriptors(descriptors.len()));
        }
        // The length is known after the body is encoded, so the bytes of the header are reserved here and filled below.
        let mut bytes = vec![0; HEADER_LEN];
        serde_json::to_writer(&mut bytes, message).map_err(SendError::Encode)?;
        let len = bytes.len() - HEADER_LEN;
        match u32::try_from(len) {
            Ok(header) if len <= MAX_FRAME => {
                bytes[..HEADER_LEN].copy_from_slice(&header.to_le_bytes())
            }
            _ => return Err(SendError::TooLong(len)),
        }
        let shared = self.shared();
        // `disconnected` is checked while the lock is held. The writing task cancels the token and clears the queue
        // under the same lock, so no frame can be queued after the queue was cleared.
        let mut write_queue = shared.write_queue();
        if shared.disconnected.is_cancelled() {
            return Err(SendError::Disconnected);
        }
        write_queue.frames.push_back(QueuedFrame {
            bytes,
            sent: 0,
            descriptors,
        });
        drop(write_queue);
        shared.wake_writer.notify_one();
        Ok(())
    }

    /// Returns the number of bytes that are queued but not written. A growing number means that the other side does not
    /// read.
    #[must_use]
    pub fn pending(&self) -> usize {
        let unsent = |frame: &QueuedFrame| frame.bytes.len() - frame.sent;
        self.shared().write_queue().frames.iter().map(unsent).sum()
    }

    /// Waits until all queued messages are written to the socket, or the other side is disconnected. Messages that are
    /// written can be read by the other side even if this process exits after the call.
    pub async fn flush(&self) {
        let shared = self.shared();
        loop {
            let mut drained = pin!(shared.drained.notified());
            // `notify_waiters` wakes only the tasks that are registered, so this task registers before it checks the
            // queue.
            drained.as_mut().enable();
            if shared.write_queue().frames.is_empty() {
                return;
            }
            drained.await;
        }
    }

    /// Returns whether the other side is known to be disconnected. The channel notices a disconnect only while a
    /// [`super::Receiver`] waits for a message, and when a write fails.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.shared().disconnected.is_cancelled()
    }

    /// Waits until the other side is known to be disconnected.
    pub async fn disconnected(&self) {
        self.shared().disconnected.cancelled().await;
    }

    /// Stops all reads and writes of the channel until the result is dropped, so that the unread and unsent bytes can
    /// be passed to the next image of this process. Senders and the receiver block their threads during that time.
    /// Therefore the caller must not await before the result is dropped.
    #[must_use]
    pub fn freeze(&self) -> FrozenChannel<'_> {
        FrozenChannel::new(self.shared())
    }

    pub(super) fn shared(&self) -> &SharedSocket {
        &self.guard.0
    }
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self {
            guard: Arc::clone(&self.guard),
            message_type: PhantomData,
        }
    }
}

/// Is shared by all clones of a sender. Closes the queue when the last clone is dropped, so that the writing task ends.
#[derive(Debug)]
struct SenderGuard(Arc<SharedSocket>);

impl Drop for SenderGuard {
    fn drop(&mut self) {
        self.0.write_queue().is_closed = true;
        self.0.wake_writer.notify_one();
    }
}

/// Writes the queued frames to the socket. Ends when all senders are dropped and all frames are written, or when the
/// other side is disconnected.
async fn write(shared: Arc<SharedSocket>) {
    let written = async {
        loop {
            while !shared.write_queue().frames.is_empty() {
                write_frames(&shared).await?;
            }
            shared.drained.notify_waiters();
            if shared.write_queue().is_closed {
                return Ok::<(), io::Error>(());
            }
            // `notify_one` stores one notification, so a frame that was queued since the check above is not missed.
            shared.wake_writer.notified().await;
        }
    };
    let is_done = tokio::select! {
        written = written => written.is_ok(),
        () = shared.disconnected.cancelled() => false,
    };
    // All senders are dropped and all frames are written, but the receiver may still be in use. So the channel is not
    // marked as disconnected.
    if is_done {
        return;
    }
    // After any error, such as EPIPE or ECONNRESET, nothing can be written to this socket any more. The frames are
    // dropped, because they would only use memory and descriptors.
    let mut write_queue = shared.write_queue();
    shared.disconnected.cancel();
    write_queue.frames.clear();
    drop(write_queue);
    shared.drained.notify_waiters();
}

/// Waits until the socket is writable, and writes as many of the frames as the socket accepts.
async fn write_frames(shared: &SharedSocket) -> io::Result<()> {
    shared.socket.writable().await?;
    let mut write_queue = shared.write_queue();
    let flush = || write_queue.flush(shared.socket.as_fd());
    match shared.socket.try_io(Interest::WRITABLE, flush) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        flushed => flushed,
    }
}

/// The reason why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message has more than [`MAX_DESCRIPTORS`] descriptors. Contains their number.
    #[error("a message has {0} descriptors, more than {MAX_DESCRIPTORS}")]
    Descriptors(usize),
    /// The message cannot be encoded as JSON.
    #[error("a message cannot be written")]
    Encode(#[source] serde_json::Error),
    /// The other side is disconnected.
    #[error("the other process has exited or closed the channel")]
    Disconnected,
    /// The message is longer than [`MAX_FRAME`]. Contains the length in bytes.
    #[error("a message is {0} bytes long, more than {MAX_FRAME}")]
    TooLong(usize),
}
