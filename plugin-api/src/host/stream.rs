//! A connection of the host's, as it crosses to a plugin.

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
    crossing::{PanicBoundary, with_waker},
};

/// Hands `stream` across. It is used, and dropped, under `guard`.
pub(super) fn export_stream<S, G>(stream: S, guard: G) -> abi::Stream
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    G: PanicBoundary,
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
    G: PanicBoundary,
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
        let Exported(stream, guard) = *unsafe { Box::from_raw(stream.cast::<Exported<S, G>>()) };
        // A panic has been reported, and changes nothing for the caller.
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
