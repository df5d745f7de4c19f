//! Writes frames to a socket from a queue, and reads frames from a socket into a buffer.
//!
//! A read never requests more bytes than the current frame has left. Therefore the bytes of the next frame stay in the
//! socket, and all descriptors that arrive belong to the current frame: the kernel delivers descriptors together with
//! the first byte of the `sendmsg` call that sent them (unix(7)).

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

/// The length of a frame's header in bytes. The header contains only the length of the body.
pub(super) const HEADER_LEN: usize = size_of::<u32>();

/// A frame that waits to be written.
#[derive(Debug)]
pub(super) struct QueuedFrame {
    /// Header and body.
    pub(super) bytes: Vec<u8>,
    /// The number of these bytes that are written to the socket.
    pub(super) sent: usize,
    /// The descriptors that are sent with the first byte. Empty after the first byte was sent.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The frames that wait to be written, in order.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    pub(super) frames: VecDeque<QueuedFrame>,
    /// Whether the last sender was dropped. The writing task then ends as soon as the queue is empty.
    pub(super) is_closed: bool,
}

impl WriteQueue {
    /// Writes frames until the queue is empty. Fails with `WouldBlock` when the socket accepts no more bytes.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(frame) = self.frames.front_mut() {
            match frame.write(socket) {
                Ok(()) if frame.sent == frame.bytes.len() => {
                    self.frames.pop_front();
                }
                // The socket accepted only a part, or a signal interrupted the call: try again.
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl QueuedFrame {
    /// Writes as many bytes of the frame as the socket accepts with one call.
    fn write(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let fds: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        self.sent += send(socket, &self.bytes[self.sent..], &fds)?;
        // The kernel holds its own references after the first byte was sent, so the descriptors are closed here.
        self.descriptors = Vec::new();
        Ok(())
    }
}

/// Sends `bytes`, and `descriptors` with the first byte. Returns the number of bytes that the socket accepted. If that
/// number is not 0, all descriptors were sent.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // `push` fails only if the descriptors do not fit into `space`, that is for more than `MAX_DESCRIPTORS`.
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    let bytes = [IoSlice::new(bytes)];
    // Without NOSIGNAL, a write to a disconnected socket would raise SIGPIPE in this process.
    sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)
}

/// The part of the current frame that was read so far.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// Header and body.
    pub(super) bytes: Vec<u8>,
    /// The descriptors that arrived with these bytes.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The result of a read from the socket that does not wait.
#[derive(Debug)]
pub(super) enum FrameRead {
    /// The body and the descriptors of a complete frame.
    Frame(Vec<u8>, Vec<OwnedFd>),
    /// The frame is not complete, and the socket has no more bytes yet.
    Blocked,
    /// The other side is disconnected, and no part of another frame was read.
    End,
}

impl ReadBuffer {
    /// Reads until the frame is complete or the socket has no more bytes. Fails when the frame is too long, when the
    /// other side disconnects in the middle of the frame, or when descriptors are lost.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<FrameRead, ChannelError> {
        loop {
            let expected = self.expected_len()?;
            let read = self.bytes.len();
            if read >= HEADER_LEN && read == expected {
                let mut frame = mem::take(&mut self.bytes);
                let body = frame.split_off(HEADER_LEN);
                return Ok(FrameRead::Frame(body, mem::take(&mut self.descriptors)));
            }
            // The buffer grows with the bytes that arrive, because a damaged header could announce a huge frame.
            self.bytes.resize(expected.min(read + MAX_READ), 0);
            let received = receive(socket, &mut self.bytes[read..], &mut self.descriptors);
            // Removes the part of the buffer that was not filled. Nothing was filled after an error.
            self.bytes.truncate(read + *received.as_ref().unwrap_or(&0));
            match received {
                // ECONNRESET instead of end of file: the other side closed the socket before it read all bytes.
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

    /// Returns the length of the frame, or the length of the header until the header is complete.
    fn expected_len(&self) -> Result<usize, ChannelError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(HEADER_LEN);
        };
        let len = u32::from_le_bytes(*header) as usize;
        if len > MAX_FRAME {
            return Err(ChannelError::TooLong(len));
        }
        Ok(HEADER_LEN + len)
    }
}

/// Receives bytes into `bytes`, and adds the descriptors that arrive with the bytes to `descriptors`. The descriptors
/// are closed at an exec. Returns the number of bytes, which is 0 at end of file. Fails with `TOOMANYREFS` when
/// descriptors were lost because this process has reached the limit on open files.
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
    // The kernel sets CTRUNC when it has dropped descriptors that this process could not receive.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::TOOMANYREFS);
    }
    Ok(received.bytes)
}

/// The largest number of bytes that one read requests.
const MAX_READ: usize = 64 << 10;

/// The size of the buffer for the control message with the descriptors of one frame, in bytes.
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));
