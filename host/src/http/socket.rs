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

use super::activity::Activity;

/// A socket that tells of the bytes that come and go, sends little bytes at once, and sees a client
/// leave while its request is answered.
///
/// hyper can look whether the client is still there (`half_close`), but does so for every request,
/// with a buffer for what might come. Here it is looked at when hyper has done all that it can and
/// the request is still not answered.
#[derive(Debug)]
pub struct Socket {
    socket: TcpStream,
    activity: Arc<Activity>,
    /// Else HTTP/2, where bytes are no sign of a request's head, and hyper reads all the time.
    is_http1: bool,
}

impl Socket {
    /// Tells `activity` of what goes through `socket`, in HTTP/1 or HTTP/2.
    #[must_use]
    pub fn new(socket: TcpStream, activity: Arc<Activity>, is_http1: bool) -> Self {
        Self {
            socket,
            activity,
            is_http1,
        }
    }

    /// The socket.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.socket
    }

    /// Tells what came of sending bytes, and passes it on.
    fn told(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if sent.is_pending() {
            self.activity.blocked();
        } else {
            self.activity.sent();
        }
        sent
    }

    /// An error when the client has left before it got its response. Else the task is woken when it
    /// leaves, or sends more.
    fn poll_left(&self, context: &mut Context<'_>) -> io::Result<()> {
        let mut next = [MaybeUninit::uninit()];
        match self
            .socket
            .poll_peek(context, &mut ReadBuf::uninit(&mut next))
        {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if self.is_http1 && buffer.filled().len() > before {
            self.activity.received();
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
        if self.is_http1 && self.activity.is_answering() {
            self.poll_left(context)?;
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
