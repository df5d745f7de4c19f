//! A channel of typed messages between two processes of one server: the supervisor and a worker.
//!
//! The channel is a Unix stream socket pair (socketpair(2)). A message is a frame: the length of
//! its body as four bytes, little endian, then the body as JSON. Descriptors travel with a frame as
//! SCM_RIGHTS (unix(7)). The first frame of each side is a [`Hello`], so that two builds that do
//! not understand each other say so instead of misreading. The end of file means that the other
//! process is gone, or wants no more.

mod blob;
mod descriptors;
mod frozen;
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
    blob::{Blob, bytes_to_fd, fd_to_bytes},
    descriptors::{Packing, Unpacking},
    frozen::{Frozen, Suspended},
    receiver::Receiver,
    sender::{SendError, Sender},
};

/// The most descriptors that one frame carries. The kernel's own limit is 253 (SCM_MAX_FD,
/// unix(7)).
pub const MAX_DESCRIPTORS: usize = 128;

/// The longest body of a frame, in bytes. A larger one is an error on both sides; large values go
/// as a [`Blob`].
pub const MAX_FRAME: usize = 64 << 20;

/// Two connected sockets, one for each side of a channel. Both are closed at an exec.
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

/// The first frame of each side: which protocol and which build the process speaks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The version of the messages. Both sides must have the same.
    pub protocol: u32,
    /// Which build of the program speaks. Builds may differ, as after an upgrade in place.
    pub build: String,
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol {} of build {}", self.protocol, self.build)
    }
}

/// An open channel, on which both sides have said hello: sends `Out`, receives `In`.
#[derive(Debug)]
pub struct Channel<Out, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Says hello on `socket` and returns the channel when the other side has said hello too,
    /// however long that takes. Runs in a tokio runtime with I/O, where a task of the channel
    /// writes what is sent.
    ///
    /// # Errors
    ///
    /// Fails when the other side has another protocol version or is no host, or ends before its
    /// hello.
    pub async fn open(socket: OwnedFd, hello: &Hello) -> Result<Self, ChannelError> {
        let shared = SharedSocket::new(socket, ReadBuffer::default(), WriteQueue::default())?;
        let sender = Sender::start(Arc::clone(&shared));
        // The other side may be gone already; then the read below says so.
        let _ = sender.send_any(hello, Vec::new());
        let mut first = Receiver::<Hello>::new(Arc::clone(&shared));
        let (theirs, _) = first.recv().await?.ok_or(ChannelError::NoHello)?;
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
    reading: Mutex<ReadBuffer>,
    writing: Mutex<WriteQueue>,
    /// Wakes the task that writes.
    wake: Notify,
    /// Wakes the tasks that wait in `flush`.
    drained: Notify,
    /// Cancelled when the other side is gone.
    gone: CancellationToken,
}

impl SharedSocket {
    fn new(
        socket: OwnedFd,
        reading: ReadBuffer,
        writing: WriteQueue,
    ) -> Result<Arc<Self>, ChannelError> {
        let socket = StdStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            socket: UnixStream::from_std(socket)?,
            reading: Mutex::new(reading),
            writing: Mutex::new(writing),
            wake: Notify::new(),
            drained: Notify::new(),
            gone: CancellationToken::new(),
        }))
    }

    fn reading(&self) -> MutexGuard<'_, ReadBuffer> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, WriteQueue> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a channel cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other side ended within a frame.
    #[error("the other process ended within a message: {read} of {expected} bytes came")]
    CutOff {
        /// How many bytes of the frame came.
        read: usize,
        /// How long the frame is.
        expected: usize,
    },
    /// A frame is not the message that is expected. The frames after it can be read.
    #[error("a message of the other process cannot be read: {start}")]
    Decode {
        /// The first characters of the frame.
        start: String,
        /// Why the frame is no message.
        source: serde_json::Error,
    },
    /// Descriptors of a frame did not arrive.
    #[error("descriptors of a message were lost: see the limit on open files (ulimit -n)")]
    DescriptorsLost,
    /// A frame is longer than [`MAX_FRAME`].
    #[error("a message of the other process says it is {0} bytes long, more than {MAX_FRAME}")]
    TooLong(usize),
    /// The two sides do not speak the same version.
    #[error("the other process speaks {theirs}, this one {ours}: both must speak one protocol")]
    Mismatch {
        /// The hello that this process sent.
        ours: Hello,
        /// The hello that the other process sent.
        theirs: Hello,
    },
    /// The other side ended before it said hello.
    #[error("the other process ended before its first message")]
    NoHello,
    /// The socket fails.
    #[error("cannot use the channel to the other process")]
    Socket(#[from] io::Error),
}
