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

/// The socket of a connection. Besides reading and writing, it does four things:
///
/// - It tells the [`Activity`] of the bytes that come, for the time limits.
/// - It tells the [`delivery`] of a response whether the client takes bytes.
/// - It sends a small head and a small body by one system call.
/// - It notices when a client closes its sending side while its request is in flight. hyper could do that
///   too (`half_close(false)`), but it would try to read at every request. This socket looks only when
///   hyper has done all that it can and the request is still not answered.
#[derive(Debug)]
pub struct Socket {
    socket: TcpStream,
    activity: Arc<Activity>,
    /// The bytes that were read to find out the protocol.
    preface: Preface,
    /// The last four received bytes. The last one is in the lowest byte.
    tail: u32,
    /// Whether the last write found no room, because the client takes nothing.
    is_blocked: bool,
    /// Whether the client has closed its sending side and nothing was sent since then.
    is_half_closed: bool,
}

impl Socket {
    /// Wraps the socket of a connection whose first bytes are in `preface`.
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

    /// Returns the system's socket.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.socket
    }

    /// Tells the delivery of a response whether the client takes bytes. Returns `sent`.
    fn record_write(&mut self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if sent.is_pending() {
            if !self.is_blocked {
                self.is_blocked = true;
                delivery::blocked();
            }
        } else if self.is_blocked || self.is_half_closed {
            self.is_blocked = false;
            self.is_half_closed = false;
            // The time until the next request begins when the client has taken the last response.
            self.activity.restart_wait();
            delivery::sent();
        }
        sent
    }

    /// Looks whether the client has closed its sending side. If it has not, the task is woken when the
    /// client closes that side or sends more.
    ///
    /// # Errors
    ///
    /// When the client has reset the connection.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // A peek of one byte shows the end of the stream and consumes nothing.
        let mut next = [MaybeUninit::uninit()];
        match self
            .socket
            .poll_peek(context, &mut ReadBuf::uninit(&mut next))
        {
            // The delivery knows already.
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

    /// Adds `bytes` to the received ones. Returns whether these end with a blank line now.
    fn ends_with_blank_line(&mut self, bytes: &[u8]) -> bool {
        // At most four bytes matter, and usually all of them are in `bytes`.
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
            // The preface gave bytes, even if the socket has none or failed. The next read tells that
            // again.
            read = Poll::Ready(Ok(()));
            if this.activity.is_http1() {
                let is_blank_line = this.ends_with_blank_line(bytes);
                let end = bytes.as_ptr_range().end.addr();
                this.activity.bytes_received(end, is_blank_line);
            }
        } else if read.is_pending() && this.activity.is_http1() {
            this.activity.bytes_wanted();
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
        self.record_write(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let socket = Pin::new(&mut self.socket);
        if slices.len() == 1 || len > MAX_GATHERED {
            let sent = socket.poll_write_vectored(context, slices);
            return self.record_write(sent);
        }
        // hyper keeps the slices and calls again with the rest if the system takes only a part of the copy.
        let sent = GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                gathered.extend_from_slice(slice);
            }
            socket.poll_write(context, gathered)
        });
        self.record_write(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all that is there to write.
        if self.activity.is_http1() && self.activity.is_busy() {
            self.poll_closed(context)?;
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

thread_local! {
    /// The scratch buffer in which small writes are put together.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Up to how many bytes of several slices are copied into one buffer, as the head and the body of a small
/// response. Copying them takes less time than the system needs for a second slice (writev(2)).
const MAX_GATHERED: usize = 4096;
