//! A connection of the host's, as the plugin uses it.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use crate::{
    abi::{self, Slice, Transfer, poll},
    crossing::PollWaker,
};

/// A stream of the host's.
#[derive(Debug)]
pub(super) struct Stream {
    stream: abi::Stream,
    reader: PollWaker,
    writer: PollWaker,
}

impl Stream {
    pub(super) fn new(stream: abi::Stream) -> Self {
        Self {
            stream,
            reader: PollWaker::default(),
            writer: PollWaker::default(),
        }
    }

    /// Reads into the `len` bytes at `buffer`, which need not be initialized; the result is how
    /// many are then.
    ///
    /// # Safety
    ///
    /// `buffer` has room for `len` bytes.
    pub(super) unsafe fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: *mut u8,
        len: usize,
    ) -> Poll<io::Result<usize>> {
        let Self { stream, reader, .. } = self;
        transfer(reader, context.waker(), |waker, out| {
            let vtable = table(stream);
            // SAFETY: `self` owns the stream, `&mut` makes this thread the only one, and the
            // caller has room for the bytes.
            unsafe { (vtable.read)(stream.stream, waker, buffer, len, out) }
        })
        // More than there is room for would be a bug of the other side that must not spread.
        .map_ok(|count| count.min(len))
    }

    /// Writes some of `bytes`; the result is how many.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context.waker(), |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above; the bytes are borrowed for the call.
            unsafe { (vtable.write)(stream.stream, waker, Slice::new(bytes), out) }
        })
        .map_ok(|count| count.min(bytes.len()))
    }

    /// Sends what has been written on its way.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context.waker(), |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above.
            unsafe { (vtable.flush)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }

    /// Tells the peer that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context.waker(), |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above.
            unsafe { (vtable.shutdown)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }
}

fn table(stream: &abi::Stream) -> &'static abi::StreamVtable {
    // SAFETY: a stream has its table, which is static in a library that is never unloaded.
    unsafe { &*stream.vtable }
}

fn transfer(
    lend: &mut PollWaker,
    waker: &Waker,
    operation: impl FnOnce(*const abi::Waker, *mut Transfer) -> u32,
) -> Poll<io::Result<usize>> {
    let mut out = Transfer::default();
    match lend.lend(waker, |waker| operation(waker, &raw mut out)) {
        poll::PENDING => Poll::Pending,
        poll::READY => Poll::Ready(Ok(out.count)),
        _ if out.errno != 0 => Poll::Ready(Err(io::Error::from_raw_os_error(out.errno))),
        _ => Poll::Ready(Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server cut the connection off",
        ))),
    }
}
