//! Byte streams, both ways: one of ours handed across, and a foreign one used as ours.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use super::PollWaker;
use crate::abi::{self, Slice, Transfer, poll};

#[cfg(feature = "host")]
pub(crate) use self::export::export_stream;

/// A stream of the other side.
#[derive(Debug)]
pub(crate) struct ImportedStream {
    stream: abi::Stream,
    reader: PollWaker,
    writer: PollWaker,
}

impl ImportedStream {
    pub(crate) fn new(stream: abi::Stream) -> Self {
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
    pub(crate) unsafe fn poll_read(
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
    pub(crate) fn poll_write(
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
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context.waker(), |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above.
            unsafe { (vtable.flush)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }

    /// Tells the peer that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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

#[cfg(feature = "host")]
mod export {
    use std::{
        ffi::c_void,
        io,
        marker::PhantomData,
        pin::Pin,
        slice,
        task::{Context, Poll, ready},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use crate::{
        abi::{self, Slice, Transfer, poll},
        crossing::{Guard, with_waker},
    };

    /// Hands `stream` across. It is used, and dropped, under `guard`.
    pub(crate) fn export_stream<S, G>(stream: S, guard: G) -> abi::Stream
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
        G: Guard,
    {
        abi::Stream {
            stream: Box::into_raw(Box::new(Exported(Box::pin(stream), guard))).cast(),
            vtable: Table::<S, G>::VTABLE,
        }
    }

    struct Exported<S, G>(Pin<Box<S>>, G);

    struct Table<S, G>(PhantomData<(S, G)>);

    impl<S, G> Table<S, G>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
        G: Guard,
    {
        const VTABLE: &'static abi::StreamVtable = &abi::StreamVtable {
            size: size_of::<abi::StreamVtable>(),
            read: Self::read,
            write: Self::write,
            flush: Self::flush,
            shutdown: Self::shutdown,
            drop: Self::drop,
        };

        unsafe extern "C" fn read(
            stream: *mut c_void,
            waker: *const abi::Waker,
            buffer: *mut u8,
            len: usize,
            out: *mut Transfer,
        ) -> u32 {
            // SAFETY: the caller has room for `len` bytes, and lends it until this returns.
            let room = unsafe { slice::from_raw_parts_mut(buffer.cast(), len) };
            let read = |stream: Pin<&mut S>, context: &mut Context<'_>| {
                let mut buffer = ReadBuf::uninit(room);
                ready!(stream.poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            };
            // SAFETY: as the caller of this function promises.
            unsafe { Self::operate(stream, waker, out, read) }
        }

        unsafe extern "C" fn write(
            stream: *mut c_void,
            waker: *const abi::Waker,
            bytes: Slice,
            out: *mut Transfer,
        ) -> u32 {
            // SAFETY: the caller lends the bytes until this returns.
            let bytes = unsafe { bytes.bytes() };
            let write =
                |stream: Pin<&mut S>, context: &mut Context<'_>| stream.poll_write(context, bytes);
            // SAFETY: as the caller of this function promises.
            unsafe { Self::operate(stream, waker, out, write) }
        }

        unsafe extern "C" fn flush(
            stream: *mut c_void,
            waker: *const abi::Waker,
            out: *mut Transfer,
        ) -> u32 {
            let flush = |stream: Pin<&mut S>, context: &mut Context<'_>| {
                stream.poll_flush(context).map_ok(|()| 0)
            };
            // SAFETY: as the caller of this function promises.
            unsafe { Self::operate(stream, waker, out, flush) }
        }

        unsafe extern "C" fn shutdown(
            stream: *mut c_void,
            waker: *const abi::Waker,
            out: *mut Transfer,
        ) -> u32 {
            let shutdown = |stream: Pin<&mut S>, context: &mut Context<'_>| {
                stream.poll_shutdown(context).map_ok(|()| 0)
            };
            // SAFETY: as the caller of this function promises.
            unsafe { Self::operate(stream, waker, out, shutdown) }
        }

        unsafe extern "C" fn drop(stream: *mut c_void) {
            // SAFETY: this table goes with a boxed `Exported`, and the caller gives it back once.
            let Exported(stream, guard) =
                *unsafe { Box::from_raw(stream.cast::<Exported<S, G>>()) };
            // What a panic leaves undone has been reported; there is nobody to tell.
            let _ = guard.run(move || drop(stream));
        }

        /// # Safety
        ///
        /// The pointers are what the functions of [`abi::StreamVtable`] are called with.
        unsafe fn operate(
            stream: *mut c_void,
            waker: *const abi::Waker,
            out: *mut Transfer,
            operation: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
        ) -> u32 {
            // SAFETY: this table goes with a boxed `Exported`, which one thread uses at a time.
            let Exported(stream, guard) = unsafe { &mut *stream.cast::<Exported<S, G>>() };
            let polled = guard.run(|| {
                // SAFETY: the caller lends the waker until this returns.
                unsafe {
                    with_waker(waker, |waker| {
                        operation(stream.as_mut(), &mut Context::from_waker(waker))
                    })
                }
            });
            let (status, transfer) = match polled {
                Some(Poll::Pending) => (poll::PENDING, Transfer::default()),
                Some(Poll::Ready(Ok(count))) => (poll::READY, Transfer { count, errno: 0 }),
                Some(Poll::Ready(Err(error))) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    (poll::FAILED, Transfer { count: 0, errno })
                }
                None => (poll::FAILED, Transfer::default()),
            };
            // SAFETY: the caller gives room for the answer.
            unsafe { *out = transfer };
            status
        }
    }
}
