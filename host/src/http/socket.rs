//! The socket of a connection, between hyper and the system.

use std::{
    cell::RefCell,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{activity::Activity, delivery, preface::Preface};

/// A socket that tells of the bytes that come and go, sends a small head and body in one piece, and
/// notices when a client closes its sending side while its request is being answered.
///
/// hyper can look whether the client is still there (`half_close`), but does so for every request,
/// with a buffer for what might come. Here it is looked at when hyper has done all that it can and
/// the request is still not answered.
#[derive(Debug)]
pub struct Socket {
    socket: TcpStream,
    activity: Arc<Activity>,
    /// What was read of the connection before, and comes first.
    preface: Preface,
    /// The last bytes that came, the last one lowest.
    tail: u32,
    /// Whether the client took none of what was to be sent last.
    is_blocked: bool,
    /// Whether the client had closed its sending side when there was last nothing to send.
    is_half_closed: bool,
}

impl Socket {
    /// Tells `activity` of what goes through `socket`, whose first bytes are in `preface`.
    #[must_use]
    pub fn new(socket: TcpStream, activity: Arc<Activity>, preface: Preface) -> Self {
        Self {
            socket,
            activity,
            preface,
            tail: 0,
            is_blocked: false,
            is_half_closed: false,
        }
    }

    /// The socket.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.socket
    }

    /// Tells the delivery of a response what came of sending bytes, and passes it on.
    fn told(&mut self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if sent.is_pending() {
            if !self.is_blocked {
                self.is_blocked = true;
                delivery::blocked();
            }
        } else if self.is_blocked || self.is_half_closed {
            self.is_blocked = false;
            self.is_half_closed = false;
            // The time until the next request begins when the client has taken the last response.
            self.activity.restart();
            delivery::sent();
        }
        sent
    }

    /// Looks whether the client has closed its sending side; an error when it has reset the connection.
    /// Else the task is woken when it does, or sends more.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut next = [MaybeUninit::uninit()];
        match self
            .socket
            .poll_peek(context, &mut ReadBuf::uninit(&mut next))
        {
            Poll::Ready(Ok(0)) if self.is_half_closed => {}
            Poll::Ready(Ok(0)) => {
                self.is_half_closed = true;
                delivery::half_closed();
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Whether the bytes that came so far, of which `bytes` are the last, end with an empty line.
    fn is_blank_line(&mut self, bytes: &[u8]) -> bool {
        match bytes.last_chunk() {
            Some(&last) => self.tail = u32::from_be_bytes(last),
            None => {
                for byte in bytes {
                    self.tail = self.tail << 8 | u32::from(*byte);
                }
            }
        }
        // A line may end with a LF alone (RFC 9112, section 2.2).
        self.tail & 0xffff == u32::from_be_bytes(*b"\0\0\n\n")
            || self.tail & 0xff_ffff == u32::from_be_bytes(*b"\0\n\r\n")
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        this.preface.give(buffer);
        let mut read = Pin::new(&mut this.socket).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            // What the socket says beyond them, it says again.
            read = Poll::Ready(Ok(()));
            if this.activity.is_http1() {
                let is_blank_line = this.is_blank_line(bytes);
                let end = bytes.as_ptr_range().end.addr();
                this.activity.received(end, is_blank_line);
            }
        } else if read.is_pending() && this.activity.is_http1() {
            this.activity.asked();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.told(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let socket = Pin::new(&mut self.socket);
        if slices.len() == 1 || len > LITTLE {
            let sent = socket.poll_write_vectored(context, slices);
            return self.told(sent);
        }
        let sent = GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                gathered.extend_from_slice(slice);
            }
            socket.poll_write(context, gathered)
        });
        self.told(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper comes here when it has written what there is to write.
        if self.activity.is_http1() && self.activity.is_answering() {
            self.poll_closed(context)?;
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

thread_local! {
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Up to how many bytes are gathered in one piece before they are sent, as the head and the body of
/// a small response: the system needs longer to look at a second piece (writev(2)) than it takes to
/// copy these.
const LITTLE: usize = 4096;
