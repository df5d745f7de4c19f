//! Frames on a socket: the queue of frames to write, and the buffer of the frame that is being read.
//!
//! A read never asks for more than the current frame. So the bytes of the next frame stay in the socket, and
//! descriptors that arrive belong to the current frame: the kernel delivers them with the first byte of the `sendmsg`
//! that carried them (unix(7)).

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use super::{ChannelError, MAX_DESCRIPTORS, MAX_FRAME};

/// How many bytes of a frame's head say how long its body is.
pub(super) const HEADER_LEN: usize = size_of::<u32>();

/// A frame that waits to be written.
#[derive(Debug)]
pub(super) struct QueuedFrame {
    /// Head and body.
    pub(super) bytes: Vec<u8>,
    /// How many of the bytes are written.
    pub(super) sent: usize,
    /// The descriptors that go with the first byte.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The frames that wait to be written, in order.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    pub(super) queue: VecDeque<QueuedFrame>,
    /// Whether the last sender was dropped. The writing task ends when the queue is empty then.
    pub(super) is_closed: bool,
}

impl WriteQueue {
    /// Writes until the queue is empty, or fails with `WouldBlock` when the socket is full.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(frame) = self.queue.front_mut() {
            match frame.write(socket) {
                Ok(()) if frame.sent == frame.bytes.len() => {
                    self.queue.pop_front();
                }
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl QueuedFrame {
    fn write(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let fds: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        self.sent += send(socket, &self.bytes[self.sent..], &fds)?;
        // The kernel holds its own references once the first byte is sent, so these can be closed.
        self.descriptors = Vec::new();
        Ok(())
    }
}

/// Sends bytes, and descriptors with the first of them. Returns how many bytes the socket took; the
/// descriptors are sent whenever that is any.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    let bytes = [IoSlice::new(bytes)];
    sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)
}

/// The frame that is being read, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// Head and body.
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The result of reading from the socket without waiting.
#[derive(Debug)]
pub(super) enum FrameRead {
    /// The body of a whole frame, and its descriptors.
    Frame(Vec<u8>, Vec<OwnedFd>),
    /// The socket has no more bytes yet.
    Blocked,
    /// The other side is gone.
    End,
}

impl ReadBuffer {
    /// Reads until the frame is whole or the socket is empty.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<FrameRead, ChannelError> {
        loop {
            let expected = self.expected()?;
            let read = self.bytes.len();
            if read >= HEADER_LEN && read == expected {
                let mut frame = mem::take(&mut self.bytes);
                let body = frame.split_off(HEADER_LEN);
                return Ok(FrameRead::Frame(body, mem::take(&mut self.descriptors)));
            }
            // The memory grows as bytes come, not by what the head claims.
            self.bytes.resize(expected.min(read + MAX_READ), 0);
            let received = receive(socket, &mut self.bytes[read..], &mut self.descriptors);
            self.bytes.truncate(read + *received.as_ref().unwrap_or(&0));
            match received {
                Ok(0) | Err(Errno::CONNRESET) if read == 0 => return Ok(FrameRead::End),
                Ok(0) | Err(Errno::CONNRESET) => {
                    return Err(ChannelError::CutOff { read, expected });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(FrameRead::Blocked),
                Err(Errno::TOOMANYREFS) => return Err(ChannelError::DescriptorsLost),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// How long the frame is, or its head as long as that is not whole.
    fn expected(&self) -> Result<usize, ChannelError> {
        let Some(head) = self.bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(HEADER_LEN);
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > MAX_FRAME {
            return Err(ChannelError::TooLong(len));
        }
        Ok(HEADER_LEN + len)
    }
}

/// Receives bytes, and adds the descriptors that come with them, which are closed at an exec. Fails with `TOOMANYREFS`
/// when descriptors were lost, which happens at the limit on open files.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(bytes)];
    let received = recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::TOOMANYREFS);
    }
    Ok(received.bytes)
}

/// How many bytes one read asks for at most.
const MAX_READ: usize = 64 << 10;

/// The buffer size for the descriptors of one frame.
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));
