//! Hands a channel from one image of a process to the next at an upgrade in place: the socket, the bytes of a
//! half-read frame, and the frames that are not yet written.

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

/// Stops reading and writing on a channel as long as this value exists.
pub struct Frozen<'a> {
    shared: &'a SharedSocket,
    reading: MutexGuard<'a, ReadBuffer>,
    writing: MutexGuard<'a, WriteQueue>,
}

impl<'a> Frozen<'a> {
    pub(super) fn new(shared: &'a SharedSocket) -> Self {
        Self {
            shared,
            reading: shared.reading(),
            writing: shared.writing(),
        }
    }

    /// Describes the channel, and adds its descriptors to those that are sent along. The channel itself does not
    /// change.
    pub fn suspend<'b>(&'b self, packing: &mut Packing<'b>) -> Suspended {
        let unsent = self.writing.queue.iter().map(|frame| {
            let bytes = BASE64_STANDARD.encode(&frame.bytes[frame.sent..]);
            let fds = frame.descriptors.iter();
            (bytes, fds.map(|fd| packing.put(fd)).collect())
        });
        let unsent = unsent.collect();
        let fds = self.reading.descriptors.iter();
        Suspended {
            unread: BASE64_STANDARD.encode(&self.reading.bytes),
            unread_descriptors: fds.map(|fd| packing.put(fd)).collect(),
            unsent,
            socket: packing.put(&self.shared.socket),
        }
    }
}

impl fmt::Debug for Frozen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").finish_non_exhaustive()
    }
}

/// A channel in a form that can be JSON. Descriptors are named by their index.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Suspended {
    socket: usize,
    /// The part of a frame that is read, as base64.
    unread: String,
    unread_descriptors: Vec<usize>,
    /// The frames that are not written, or the rest of one, as base64 and with their descriptors.
    unsent: Vec<(String, Vec<usize>)>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Opens a suspended channel again, without a hello. Runs in a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Fails when a descriptor is missing or the socket cannot be used.
    pub fn resume(suspended: Suspended, fds: &mut Unpacking) -> Result<Self, ChannelError> {
        let mut take = |numbers: Vec<usize>| -> io::Result<Vec<_>> {
            numbers.into_iter().map(|number| fds.take(number)).collect()
        };
        let decode = |text| BASE64_STANDARD.decode(text).map_err(io::Error::other);
        let reading = ReadBuffer {
            bytes: decode(suspended.unread)?,
            descriptors: take(suspended.unread_descriptors)?,
        };
        let mut writing = WriteQueue::default();
        for (bytes, descriptors) in suspended.unsent {
            writing.queue.push_back(QueuedFrame {
                bytes: decode(bytes)?,
                sent: 0,
                descriptors: take(descriptors)?,
            });
        }
        let shared = SharedSocket::new(fds.take(suspended.socket)?, reading, writing)?;
        let sender = Sender::start(Arc::clone(&shared));
        let receiver = Receiver::new(shared);
        Ok(Self { sender, receiver })
    }
}
