//! A channel of typed messages between two processes of one server: the supervisor and a worker.
//!
//! The channel is a Unix stream socket pair (socketpair(2)). Each message is sent as a frame: four bytes with the
//! length of the body, little endian, followed by the body as JSON. File descriptors are sent with a frame as
//! SCM_RIGHTS (unix(7)). The first frame of each side is a [`Hello`], so that two builds with different protocols fail
//! with an error instead of misreading each other's messages. End of file means that the other side is disconnected:
//! the other process has exited or closed its end of the channel.

mod descriptors;
mod frozen;
pub mod listeners;
mod memory_file;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::Notify};
use tokio_util::sync::CancellationToken;

use self::wire::{ReadBuffer, WriteQueue};
pub(crate) use self::wire::{receive, send};
pub use self::{
    descriptors::{Packing, Unpacking},
    frozen::{FrozenChannel, SuspendedChannel},
    memory_file::{bytes_to_fd, fd_to_bytes},
    receiver::Receiver,
    sender::{SendError, Sender},
};

/// The largest number of descriptors in one frame. The limit of the kernel is 253 (SCM_MAX_FD, unix(7)).
pub const MAX_DESCRIPTORS: usize = 128;

/// The largest body of a frame in bytes. A larger body is an error on both sides.
pub const MAX_FRAME: usize = 64 << 20;

/// Creates two connected sockets, one for each side of a channel. Both are closed at an exec.
///
/// # Errors
///
/// Returns the system's error when the process may not open more files.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// The first frame that each side sends. It names the protocol and the build of the sending process.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The version of the messages. Both sides must have the same version.
    pub protocol: u32,
    /// The build of the sending program. The builds of the two sides may differ, for example after an upgrade in place.
    pub build: String,
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol {} of build {}", self.protocol, self.build)
    }
}

/// An open channel, on which both sides have sent their [`Hello`]. Sends messages of the type `Out` and receives
/// messages of the type `In`.
#[derive(Debug)]
pub struct Channel<Out, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Sends `hello` on `socket`, and returns the channel when the hello of the other side has arrived. Waits without a
    /// time limit. Must be called in a tokio runtime with I/O, because the channel starts a task that writes the
    /// messages.
    ///
    /// # Errors
    ///
    /// Fails when the other side has another protocol version, sends anything but a hello, or disconnects before its
    /// hello.
    pub async fn open(socket: OwnedFd, hello: &Hello) -> Result<Self, ChannelError> {
        let shared = SharedSocket::new(socket, ReadBuffer::default(), WriteQueue::default())?;
        let sender = Sender::start(Arc::clone(&shared));
        // If the other side is disconnected already, the read below reports the error.
        let _ = sender.send_any(hello, Vec::new());
        let mut first = Receiver::<Hello>::new(Arc::clone(&shared));
        let (theirs, _no_descriptors) = first.recv().await?.ok_or(ChannelError::NoHello)?;
        if theirs.protocol != hello.protocol {
            let ours = hello.clone();
            return Err(ChannelError::Mismatch { ours, theirs });
        }
        let receiver = Receiver::new(shared);
        Ok(Self { sender, receiver })
    }

    /// Returns the half that sends, which can be cloned, and the half that receives.
    #[must_use]
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }
}

/// The socket and the buffers that the sending and the receiving half of a channel share.
#[derive(Debug)]
struct SharedSocket {
    socket: UnixStream,
    /// The frame that is being read. Locked during each read.
    read_buffer: Mutex<ReadBuffer>,
    /// The frames to write. Locked during each write.
    write_queue: Mutex<WriteQueue>,
    /// Wakes the task that writes.
    wake_writer: Notify,
    /// Wakes the tasks that wait in [`Sender::flush`].
    drained: Notify,
    /// Cancelled when reading or writing has shown that the other side is disconnected.
    disconnected: CancellationToken,
}

impl SharedSocket {
    fn new(
        socket: OwnedFd,
        read_buffer: ReadBuffer,
        write_queue: WriteQueue,
    ) -> Result<Arc<Self>, ChannelError> {
        let socket = StdStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            socket: UnixStream::from_std(socket)?,
            read_buffer: Mutex::new(read_buffer),
            write_queue: Mutex::new(write_queue),
            wake_writer: Notify::new(),
            drained: Notify::new(),
            disconnected: CancellationToken::new(),
        }))
    }

    fn read_buffer(&self) -> MutexGuard<'_, ReadBuffer> {
        self.read_buffer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write_queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.write_queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why a channel cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other side disconnected in the middle of a frame.
    #[error("the other process ended within a message: {read} of {expected} bytes came")]
    CutOff {
        /// The number of bytes of the frame that arrived.
        read: usize,
        /// The length of the whole frame in bytes.
        expected: usize,
    },
    /// A frame does not contain a message of the expected type. The next frames can still be read.
    #[error("a message of the other process cannot be read: {start}")]
    Decode {
        /// The beginning of the frame's body, with control characters escaped.
        start: String,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// Descriptors of a frame did not arrive, because this process may not open more files.
    #[error("descriptors of a message were lost: see the limit on open files (ulimit -n)")]
    DescriptorsLost,
    /// The body of a frame is longer than [`MAX_FRAME`].
    #[error("a message of the other process says it is {0} bytes long, more than {MAX_FRAME}")]
    TooLong(usize),
    /// The two sides have different protocol versions.
    #[error("the other process speaks {theirs}, this one {ours}: both must speak one protocol")]
    Mismatch {
        /// The hello that this process sent.
        ours: Hello,
        /// The hello that the other process sent.
        theirs: Hello,
    },
    /// The other side disconnected before its hello.
    #[error("the other process ended before its first message")]
    NoHello,
    /// An operation on the socket failed.
    #[error("cannot use the channel to the other process")]
    Socket(#[from] io::Error),
}
