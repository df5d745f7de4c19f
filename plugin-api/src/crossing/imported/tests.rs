use std::{
    collections::VecDeque,
    convert::Infallible,
    ffi::c_void,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use bytes::Bytes;

use super::*;
use crate::crossing::{PanicBoundary, export};

const MAX_FRAMES: usize = ImportedBody::MAX_FRAMES_AT_ONCE;

#[derive(Clone)]
struct Here;

impl PanicBoundary for Here {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
    }
}

/// A body of these frames. A poll is pending at each `None`, and panics at an empty frame.
struct Script(VecDeque<Option<Frame<Bytes>>>);

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(None) => Poll::Pending,
            Some(Some(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => panic!(),
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }
}

fn data(number: u8) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::from(vec![number])))
}

/// Polls a body until it ends, and returns a text for each result: a number for data, a word for any other result.
fn poll_results(mut body: ImportedBody) -> Vec<String> {
    let mut results = Vec::new();
    let context = &mut Context::from_waker(Waker::noop());
    loop {
        let item = match body.poll_frame(context) {
            Poll::Pending => "pending".to_owned(),
            Poll::Ready(None) => return results,
            Poll::Ready(Some(Err(error))) => error.to_string(),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data.chunk()[0].to_string(),
                Err(frame) => format!("{:?}", frame.trailers_ref()),
            },
        };
        results.push(item);
    }
}

fn crossed(frames: impl IntoIterator<Item = Option<Frame<Bytes>>>) -> Vec<String> {
    let script = Script(frames.into_iter().collect());
    poll_results(ImportedBody::take(&mut export(script, Here), MAX_FRAMES))
}

#[test]
fn frames_come_in_order_however_many_cross_at_once() {
    let all: Vec<_> = (0..100).map(|number: u8| number.to_string()).collect();
    assert_eq!(crossed((0..100).map(data)), all);

    // With a pending poll after every third frame.
    let waits = (0..100).flat_map(|number| {
        let wait = (number % 3 == 2).then_some(None);
        [Some(data(number)), wait].into_iter().flatten()
    });
    let mut told = crossed(waits);
    told.retain(|item| item != "pending");
    assert_eq!(told, all);
}

#[test]
fn what_ends_a_stream_comes_behind_the_bytes_before_it() {
    let mut map = HeaderMap::new();
    map.append("x-sum", http::HeaderValue::from_static("7"));
    let trailers = Some(Frame::trailers(map.clone()));
    let mut told = crossed((0..9).map(data).chain([trailers, data(9)]));
    assert_eq!(told.pop(), Some(format!("{:?}", Some(map))));
    assert_eq!(told.len(), 9);

    let panics = Some(Frame::data(Bytes::new()));
    let mut told = crossed((0..9).map(data).chain([panics, data(9)]));
    assert_eq!(told.pop(), Some(crate::PANICKED.to_owned()));
    assert_eq!(told.len(), 9);
}

/// An endless body of frames of the same size, which counts its polls.
struct Endless(Bytes, Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.0.clone()))))
    }
}

#[test]
fn what_is_asked_for_ahead_has_a_limit() {
    for (size, at_once, most) in [
        (1, MAX_FRAMES, MAX_FRAMES),
        (1, 1, 1),
        (BATCH_BYTES / 2, MAX_FRAMES, 2),
        (BATCH_BYTES, MAX_FRAMES, 1),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let endless = Endless(Bytes::from(vec![0; size]), Arc::clone(&asked));
        let mut body = ImportedBody::take(&mut export(endless, Here), at_once);
        let mut ahead = 0;
        for taken in 1..=100 {
            let polled = body.poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
            ahead = ahead.max(asked.load(Ordering::Relaxed) - taken);
        }
        assert_eq!(ahead, most - 1, "frames of {size}");
    }
}

#[test]
fn a_stream_that_knows_no_more_than_one_frame_is_asked_for_one() {
    unsafe extern "C" fn next(
        stream: *mut c_void,
        _: *const abi::Waker,
        out: *mut abi::Frame,
    ) -> u32 {
        // SAFETY: the stream is the number below, which one thread polls at a time.
        let left = unsafe { &mut *stream.cast::<u8>() };
        *left -= 1;
        let frame = abi::Frame {
            kind: abi::Frame::DATA,
            last: u32::from(*left == 0),
            data: Bytes::from(vec![*left]).into(),
            trailers: abi::Headers::NONE,
        };
        // SAFETY: `out` points to a valid frame.
        unsafe { *out = frame };
        poll::READY
    }
    unsafe extern "C" fn drop(_: *mut c_void) {}
    unsafe extern "C" fn behind(_: *mut c_void, _: *const abi::Waker, _: *mut abi::Frames) -> u32 {
        unreachable!("it is behind the end of the table");
    }
    // Has the size of the table of ABI 1.0.
    static TABLE: abi::BodyVtable = abi::BodyVtable {
        size: mem::offset_of!(abi::BodyVtable, poll_frames),
        poll: next,
        drop,
        poll_frames: behind,
    };

    let mut left = 5_u8;
    let mut body = abi::Body::empty();
    body.kind = abi::Body::STREAM;
    body.stream = (&raw mut left).cast();
    body.vtable = &raw const TABLE;
    assert_eq!(
        poll_results(ImportedBody::take(&mut body, MAX_FRAMES)),
        ["4", "3", "2", "1", "0"]
    );
}
