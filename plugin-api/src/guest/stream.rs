//! A connection of the host's, as the plugin uses it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

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

    /// Reads into the `len` bytes at `buffer`, which need not be initialized. Returns how many bytes were read.
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
        transfer(reader, context, |waker, out| {
            let vtable = table(stream);
            // SAFETY: `self` owns the stream, `&mut` makes this thread the only one, and the
            // caller has room for the bytes.
            unsafe { (vtable.read)(stream.stream, waker, buffer, len, out) }
        })
        // A larger count would be a bug of the other side, which must not become undefined behavior here.
        .map_ok(|count| count.min(len))
    }

    /// Writes some of `bytes`; the result is how many.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context, |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above; the bytes are borrowed for the call.
            unsafe { (vtable.write)(stream.stream, waker, Slice::new(bytes), out) }
        })
        .map_ok(|count| count.min(bytes.len()))
    }

    /// Sends what has been written on its way.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context, |waker, out| {
            let vtable = table(stream);
            // SAFETY: as above.
            unsafe { (vtable.flush)(stream.stream, waker, out) }
        })
        .map_ok(|_| ())
    }

    /// Tells the peer that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, writer, .. } = self;
        transfer(writer, context, |waker, out| {
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

/// Does an operation of the host's. It counts as a step of the task, as one of tokio's own socket does: a
/// task whose peer is always ready gives its thread back after a while.
fn transfer(
    lend: &mut PollWaker,
    context: &mut Context<'_>,
    operation: impl FnOnce(*const abi::Waker, *mut Transfer) -> u32,
) -> Poll<io::Result<usize>> {
    let step = ready!(coop::poll_proceed(context));
    let mut out = Transfer::default();
    let came_of_it = lend.lend(context.waker(), |waker| operation(waker, &raw mut out));
    if came_of_it != poll::PENDING {
        step.made_progress();
    }
    match came_of_it {
        poll::PENDING => Poll::Pending,
        poll::READY => Poll::Ready(Ok(out.count)),
        _ if out.errno != 0 => Poll::Ready(Err(io::Error::from_raw_os_error(out.errno))),
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
        // SAFETY: the caller gives room for the answer.
        unsafe { (*out).count = len };
        poll::READY
    }

    unsafe extern "C" fn write(
        _: *mut c_void,
        _: *const abi::Waker,
        bytes: Slice,
        out: *mut Transfer,
    ) -> u32 {
        // SAFETY: the caller gives room for the answer.
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
        let mut room = [0; 4];
        let steps = runtime.block_on(poll_fn(|context| {
            let mut polls = (0..1000).map(|step| {
                if step % 2 == 0 {
                    return stream.poll_write(context, b"a");
                }
                let (place, len) = (room.as_mut_ptr(), room.len());
                // SAFETY: there is room for so many.
                unsafe { stream.poll_read(context, place, len) }
            });
            Poll::Ready(polls.position(|polled| polled.is_pending()))
        }));
        assert_eq!(steps, Some(128));
    }
}
