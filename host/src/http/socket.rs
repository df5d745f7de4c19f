//! The socket of a connection: a layer between hyper and the TCP socket.

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

/// The socket of a connection. Besides reading and writing, the socket does four things:
///
/// - It reports received bytes to the [`Activity`], for the time limits.
/// - It reports to the [`delivery`] of a response whether the client reads bytes.
/// - It sends a small head and a small body with one system call.
/// - It detects that the client has closed its sending side while a request is in flight. hyper could detect
///   that too (`half_close(false)`), but hyper would then try to read for every request. The socket checks only
///   when hyper flushes and the request still has no complete response.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// The bytes that were read to detect the protocol. hyper reads them first.
    preface: Preface,
    /// The last four received bytes, as a big-endian number: the last byte is the lowest.
    last_bytes: u32,
    /// Whether the last write was blocked, because the client reads no bytes.
    is_blocked: bool,
    /// Whether the client has closed its sending side, and no bytes were sent since that was detected.
    is_half_closed: bool,
}

impl Socket {
    /// Creates the socket of a connection whose first bytes are in `preface`.
    #[must_use]
    pub fn new(stream: TcpStream, activity: Arc<Activity>, preface: Preface) -> Self {
        Self {
            stream,
            activity,
            preface,
            last_bytes: 0,
            is_blocked: false,
            is_half_closed: false,
        }
    }

    /// Returns the TCP socket.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Reports the result of a write to the delivery of the response: whether the client reads bytes. Returns `sent`.
    fn record_write(&mut self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if sent.is_pending() {
            if !self.is_blocked {
                self.is_blocked = true;
                delivery::on_write_blocked();
            }
        } else if self.is_blocked || self.is_half_closed {
            self.is_blocked = false;
            self.is_half_closed = false;
            // The idle time begins when the client has read the last response, not when the response's body ended.
            self.activity.restart_wait();
            delivery::on_bytes_written();
        }
        sent
    }

    /// Checks whether the client has closed its sending side, and reports that to the delivery. Otherwise the task is
    /// woken when the client closes that side or sends more bytes.
    ///
    /// # Errors
    ///
    /// When the client has reset the connection.
    fn check_half_close(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // A peek detects the end of the stream and leaves other bytes in the socket for hyper.
        let mut next = [MaybeUninit::uninit()];
        match self
            .stream
            .poll_peek(context, &mut ReadBuf::uninit(&mut next))
        {
            // The delivery was informed already.
            Poll::Ready(Ok(0)) if self.is_half_closed => {}
            Poll::Ready(Ok(0)) => {
                self.is_half_closed = true;
                delivery::on_half_close();
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Updates `last_bytes` with received bytes. Returns whether all received bytes end with an empty line now.
    fn ends_with_empty_line(&mut self, bytes: &[u8]) -> bool {
        // The last four bytes are enough, and they are usually all in `bytes`.
        match bytes.last_chunk() {
            Some(&last) => self.last_bytes = u32::from_be_bytes(last),
            None => {
                for byte in bytes {
                    self.last_bytes = self.last_bytes << 8 | u32::from(*byte);
                }
            }
        }
        // A line ends with CR LF or with a LF alone (RFC 9112, section 2.2).
        self.last_bytes & 0xffff == u32::from_be_bytes(*b"\0\0\n\n")
            || self.last_bytes & 0xff_ffff == u32::from_be_bytes(*b"\0\n\r\n")
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
        this.preface.move_to(buffer);
        let mut read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            // Bytes of the preface are a successful read, even if the TCP socket has no bytes or failed. The next
            // read returns that result again.
            read = Poll::Ready(Ok(()));
            if this.activity.is_http1() {
                let ends_with_empty_line = this.ends_with_empty_line(bytes);
                let end = bytes.as_ptr_range().end.addr();
                this.activity.on_bytes_received(end, ends_with_empty_line);
            }
        } else if read.is_pending() && this.activity.is_http1() {
            this.activity.on_read_pending();
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
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.record_write(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let socket = Pin::new(&mut self.stream);
        if slices.len() == 1 || len > MAX_COPIED_BYTES {
            let sent = socket.poll_write_vectored(context, slices);
            return self.record_write(sent);
        }
        // If the system writes only a part of the copy, hyper calls again with the rest of its slices.
        let sent = COPY_BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            for slice in slices {
                buffer.extend_from_slice(slice);
            }
            socket.poll_write(context, buffer)
        });
        self.record_write(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all bytes that it has. If a request is still in flight, hyper waits for
        // the app.
        if self.activity.is_http1() && self.activity.is_busy() {
            self.check_half_close(context)?;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

thread_local! {
    /// The scratch buffer into which the slices of a small write are copied.
    static COPY_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The maximum size of a write whose slices are copied into one buffer, such as the head and the body of a small
/// response. Copying takes less time than the system needs for a second slice (writev(2)).
const MAX_COPIED_BYTES: usize = 4096;
