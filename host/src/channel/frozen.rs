//! Passes a channel from one image of a process to the next image at an upgrade in place: the socket, the bytes of a
//! frame that is read only in part, and the frames that are not written yet.

use std::{
    fmt, io,
    sync::{Arc, MutexGuard},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Channel, ChannelError, Packing, Receiver, Sender, SharedSocket, Unpacking,
    wire::{QueuedFrame, ReadBuffer, WriteQueue},
};

/// A channel on which nothing is read or written while this value exists, because the value holds the locks of both
/// buffers.
pub struct FrozenChannel<'a> {
    shared: &'a SharedSocket,
    read_buffer: MutexGuard<'a, ReadBuffer>,
    write_queue: MutexGuard<'a, WriteQueue>,
}

impl<'a> FrozenChannel<'a> {
    pub(super) fn new(shared: &'a SharedSocket) -> Self {
        Self {
            shared,
            read_buffer: shared.read_buffer(),
            write_queue: shared.write_queue(),
        }
    }

    /// Describes the channel for the next image, and adds the descriptors of the channel to `packing`. The channel does
    /// not change, so that this image can continue to use the channel if the upgrade fails.
    pub fn suspend<'b>(&'b self, packing: &mut Packing<'b>) -> SuspendedChannel {
        let unsent = self.write_queue.frames.iter().map(|frame| {
            // The next image must not repeat bytes that the other side has received.
            let bytes = BASE64_STANDARD.encode(&frame.bytes[frame.sent..]);
            let fds = frame.descriptors.iter();
            (bytes, fds.map(|fd| packing.put(fd)).collect())
        });
        let unsent = unsent.collect();
        let fds = self.read_buffer.descriptors.iter();
        SuspendedChannel {
            unread: BASE64_STANDARD.encode(&self.read_buffer.bytes),
            unread_descriptors: fds.map(|fd| packing.put(fd)).collect(),
            unsent,
            socket: packing.put(&self.shared.socket),
        }
    }
}

impl fmt::Debug for FrozenChannel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenChannel").finish_non_exhaustive()
    }
}

/// A description of a channel, which is passed as JSON to the next image of this process. Descriptors are named by
/// their indices in the list that is passed with the JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedChannel {
    /// The index of the channel's socket.
    socket: usize,
    /// The bytes of the frame that is read only in part, as base64. They are read from the socket, but not yet passed
    /// to a receiver.
    unread: String,
    /// The descriptors that arrived with these bytes.
    unread_descriptors: Vec<usize>,
    /// The frames that are not written, as base64 and with their descriptors. The first frame may be the unwritten rest
    /// of a frame.
    unsent: Vec<(String, Vec<usize>)>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Opens a suspended channel again. No hello is sent, because both sides have sent their hello before. Must be
    /// called in a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Fails when a descriptor is missing, when the base64 is invalid, or when the socket cannot be used.
    pub fn resume(suspended: SuspendedChannel, fds: &mut Unpacking) -> Result<Self, ChannelError> {
        let mut take = |numbers: Vec<usize>| -> io::Result<Vec<_>> {
            numbers.into_iter().map(|number| fds.take(number)).collect()
        };
        let decode = |text| BASE64_STANDARD.decode(text).map_err(io::Error::other);
        let read_buffer = ReadBuffer {
            bytes: decode(suspended.unread)?,
            descriptors: take(suspended.unread_descriptors)?,
        };
        let mut write_queue = WriteQueue::default();
        for (bytes, descriptors) in suspended.unsent {
            write_queue.frames.push_back(QueuedFrame {
                bytes: decode(bytes)?,
                // The bytes are only those that the previous image has not sent.
                sent: 0,
                descriptors: take(descriptors)?,
            });
        }
        let shared = SharedSocket::new(fds.take(suspended.socket)?, read_buffer, write_queue)?;
        let sender = Sender::start(Arc::clone(&shared));
        let receiver = Receiver::new(shared);
        Ok(Self { sender, receiver })
    }
}
