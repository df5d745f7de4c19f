//! Passes a client's connection to a plugin, as an [`abi::Stream`].

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

/// Converts `stream` to an ABI stream. The plugin's calls operate on the stream, and drop it, within `boundary`.
pub(super) fn export_stream<S, G>(stream: S, boundary: G) -> abi::Stream
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    G: PanicBoundary,
{
    abi::Stream {
        stream: Box::into_raw(Box::new(ExportedStream(Box::pin(stream), boundary))).cast(),
        vtable: StreamFunctions::<S, G>::VTABLE,
    }
}

/// The object behind the `stream` pointer of an [`abi::Stream`]: the stream, and the panic boundary.
struct ExportedStream<S, G>(Pin<Box<S>>, G);

/// Holds the functions of an [`ExportedStream<S, G>`]. In these functions, `stream` points to such an object.
struct StreamFunctions<S, G>(PhantomData<(S, G)>);

impl<S, G> StreamFunctions<S, G>
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
        // SAFETY: the plugin passes a buffer of `len` writable bytes, and does not use the buffer until this function
        // returns. The slice has the type `MaybeUninit`, because the bytes may be uninitialized.
        let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast(), len) };
        let read = |stream: Pin<&mut S>, context: &mut Context<'_>| {
            let mut buffer = ReadBuf::uninit(buffer);
            ready!(stream.poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        };
        // SAFETY: the plugin passes pointers according to the contract of `StreamVtable::read`.
        unsafe { Self::run(stream, waker, out, read) }
    }

    unsafe extern "C" fn write(
        stream: *mut c_void,
        waker: *const abi::Waker,
        bytes: Slice,
        out: *mut Transfer,
    ) -> u32 {
        // SAFETY: the plugin passes bytes that are valid until this function returns.
        let bytes = unsafe { bytes.bytes() };
        let write =
            |stream: Pin<&mut S>, context: &mut Context<'_>| stream.poll_write(context, bytes);
        // SAFETY: the plugin passes pointers according to the contract of `StreamVtable::write`.
        unsafe { Self::run(stream, waker, out, write) }
    }

    unsafe extern "C" fn flush(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: *mut Transfer,
    ) -> u32 {
        let flush = |stream: Pin<&mut S>, context: &mut Context<'_>| {
            stream.poll_flush(context).map_ok(|()| 0)
        };
        // SAFETY: the plugin passes pointers according to the contract of `StreamVtable::flush`.
        unsafe { Self::run(stream, waker, out, flush) }
    }

    unsafe extern "C" fn shutdown(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: *mut Transfer,
    ) -> u32 {
        let shutdown = |stream: Pin<&mut S>, context: &mut Context<'_>| {
            stream.poll_shutdown(context).map_ok(|()| 0)
        };
        // SAFETY: the plugin passes pointers according to the contract of `StreamVtable::shutdown`.
        unsafe { Self::run(stream, waker, out, shutdown) }
    }

    unsafe extern "C" fn drop(stream: *mut c_void) {
        // SAFETY: `export_stream` has created the pointer from a box of this type, and the plugin calls `drop` once.
        let exported = unsafe { Box::from_raw(stream.cast::<ExportedStream<S, G>>()) };
        let ExportedStream(stream, boundary) = *exported;
        // A panic is already reported, and the plugin needs no result.
        let _ = boundary.run(move || drop(stream));
    }

    /// Runs `operation` within the panic boundary, and writes its result to `out`. Returns a [code](poll). A panic
    /// returns [`poll::FAILED`] without an error number.
    ///
    /// # Safety
    ///
    /// `stream`, `waker` and `out` are arguments of a function of [`abi::StreamVtable`], and satisfy its contract.
    unsafe fn run(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: *mut Transfer,
        operation: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> u32 {
        // SAFETY: `export_stream` has created the pointer from a box of this type. The contract of `StreamVtable` lets
        // only one thread at a time use the stream.
        let exported = unsafe { &mut *stream.cast::<ExportedStream<S, G>>() };
        let ExportedStream(stream, boundary) = exported;
        let polled = boundary.run(|| {
            // SAFETY: the caller guarantees that the waker is valid until this function returns.
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
        // SAFETY: the caller guarantees that `out` is writable.
        unsafe { *out = transfer };
        status
    }
}
