//! The byte stream of a client's connection, which the host passes to the plugin for an upgrade.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

use crate::{
    abi::{self, Slice, Transfer, poll},
    crossing::PollWaker,
};

/// An [`abi::Stream`] of the host, with methods that use std types. Dropping the stream closes the connection.
#[derive(Debug)]
pub(super) struct Stream {
    stream: abi::Stream,
    /// The waker of the task that reads. Separate from `write_waker`, because one task may read while another task
    /// writes.
    read_waker: PollWaker,
    /// The waker of the task that writes, flushes or shuts down.
    write_waker: PollWaker,
}

impl Stream {
    pub(super) fn new(stream: abi::Stream) -> Self {
        Self {
            stream,
            read_waker: PollWaker::default(),
            write_waker: PollWaker::default(),
        }
    }

    /// Reads into the `len` bytes at `buffer`, which may be uninitialized. Returns the number of bytes read, or 0 at
    /// the end of the stream.
    ///
    /// # Safety
    ///
    /// `buffer` points to `len` writable bytes.
    pub(super) unsafe fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: *mut u8,
        len: usize,
    ) -> Poll<io::Result<usize>> {
        let Self {
            stream, read_waker, ..
        } = self;
        transfer(read_waker, context, |waker, out| {
            let vtable = vtable(stream);
            // SAFETY: `self` owns the stream, and `&mut self` excludes other threads. The caller guarantees that
            // `buffer` points to `len` writable bytes.
            unsafe { (vtable.read)(stream.stream, waker, buffer, len, out) }
        })
        // A count above `len` would be a bug of the host, and would mark uninitialized memory as read.
        .map_ok(|count| count.min(len))
    }

    /// Writes as many of the first bytes of `bytes` as possible, and returns their number.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            stream,
            write_waker,
            ..
        } = self;
        transfer(write_waker, context, |waker, out| {
            let vtable = vtable(stream);
            // SAFETY: `self` owns the stream, and `&mut self` excludes other threads. `bytes` is borrowed until `write`
            // returns.
            unsafe { (vtable.write)(stream.stream, waker, Slice::new(bytes), out) }
        })
        .map_ok(|count| count.min(bytes.len()))
    }

    /// Sends all written bytes that are still in a buffer of the host.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            write_waker,
            ..
        } = self;
        transfer(write_waker, context, |waker, out| {
            let vtable = vtable(stream);
            // SAFETY: `self` owns the stream, and `&mut self` excludes other threads.
            unsafe { (vtable.flush)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }

    /// Closes the sending direction, so that the peer reads the end of the stream.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            write_waker,
            ..
        } = self;
        transfer(write_waker, context, |waker, out| {
            let vtable = vtable(stream);
            // SAFETY: `self` owns the stream, and `&mut self` excludes other threads.
            unsafe { (vtable.shutdown)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }
}

/// Returns the vtable of a stream that is not [`abi::Stream::NONE`].
fn vtable(stream: &abi::Stream) -> &'static abi::StreamVtable {
    // SAFETY: only a stream that is not empty becomes a `Stream`, so `vtable` is not null. The vtable is never freed,
    // because it is a static of the host's binary.
    unsafe { &*stream.vtable }
}

/// Calls `operation`, a function of the host, and converts its return code and its [`Transfer`].
///
/// The operation uses tokio's cooperative budget, like an operation of tokio's own sockets. Without the budget, a task
/// whose peer is always ready would occupy its thread forever.
fn transfer(
    poll_waker: &mut PollWaker,
    context: &mut Context<'_>,
    operation: impl FnOnce(*const abi::Waker, *mut Transfer) -> u32,
) -> Poll<io::Result<usize>> {
    let budget = ready!(coop::poll_proceed(context));
    let mut out = Transfer::default();
    let code = poll_waker.with_abi(context.waker(), |waker| operation(waker, &raw mut out));
    // Without this call, dropping `budget` restores the unit of the budget that `poll_proceed` has used. An operation
    // that is pending must cost nothing.
    if code != poll::PENDING {
        budget.made_progress();
    }
    match code {
        poll::PENDING => Poll::Pending,
        poll::READY => Poll::Ready(Ok(out.count)),
        _ if out.errno != 0 => Poll::Ready(Err(io::Error::from_raw_os_error(out.errno))),
        // A failure without an error number means that the host has aborted the connection.
        _ => Poll::Ready(Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server cut the connection off",
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::c_void, future::poll_fn, ptr};

    use tokio::runtime::Builder;

    use super::*;

    unsafe extern "C" fn read(
        _: *mut c_void,
        _: *const abi::Waker,
        _: *mut u8,
        len: usize,
        out: *mut Transfer,
    ) -> u32 {
        // SAFETY: `out` points to a writable `Transfer`.
        unsafe { (*out).count = len };
        poll::READY
    }

    unsafe extern "C" fn write(
        _: *mut c_void,
        _: *const abi::Waker,
        bytes: Slice,
        out: *mut Transfer,
    ) -> u32 {
        // SAFETY: `out` points to a writable `Transfer`.
        unsafe { (*out).count = bytes.len };
        poll::READY
    }

    unsafe extern "C" fn nothing(_: *mut c_void, _: *const abi::Waker, _: *mut Transfer) -> u32 {
        poll::READY
    }

    unsafe extern "C" fn drop(_: *mut c_void) {}

    /// The table of a connection whose peer is always ready.
    static READY: abi::StreamVtable = abi::StreamVtable {
        size: size_of::<abi::StreamVtable>(),
        read,
        write,
        flush: nothing,
        shutdown: nothing,
        drop,
    };

    #[test]
    fn a_task_whose_peer_is_always_ready_gives_its_thread_back() {
        let mut stream = Stream::new(abi::Stream {
            stream: ptr::null_mut(),
            vtable: &READY,
        });
        let runtime = Builder::new_current_thread().build().unwrap();
        let mut buffer = [0; 4];
        let steps = runtime.block_on(poll_fn(|context| {
            let mut polls = (0..1000).map(|step| {
                if step % 2 == 0 {
                    return stream.poll_write(context, b"a");
                }
                let (start, len) = (buffer.as_mut_ptr(), buffer.len());
                // SAFETY: `buffer` has `len` bytes.
                unsafe { stream.poll_read(context, start, len) }
            });
            Poll::Ready(polls.position(|polled| polled.is_pending()))
        }));
        assert_eq!(steps, Some(128));
    }
}
