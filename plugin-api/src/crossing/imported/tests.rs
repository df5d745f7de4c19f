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
use crate::crossing::{Guard, export};

const MOST: usize = Imported::SEVERAL;

#[derive(Clone)]
struct Here;

impl Guard for Here {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
    }
}

/// A body of these frames, which has to wait at each `None`, and panics at an empty one.
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

/// What comes of polling a body until it ends: a number for data, and words for the rest.
fn told(mut body: Imported) -> Vec<String> {
    let mut told = Vec::new();
    let context = &mut Context::from_waker(Waker::noop());
    loop {
        let item = match body.poll_frame(context) {
            Poll::Pending => "pending".to_owned(),
            Poll::Ready(None) => return told,
            Poll::Ready(Some(Err(error))) => error.to_string(),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data.chunk()[0].to_string(),
                Err(frame) => format!("{:?}", frame.trailers_ref()),
            },
        };
        told.push(item);
    }
}

fn crossed(frames: impl IntoIterator<Item = Option<Frame<Bytes>>>) -> Vec<String> {
    let script = Script(frames.into_iter().collect());
    told(Imported::take(&mut export(script, Here), MOST))
}

#[test]
fn frames_come_in_order_however_many_cross_at_once() {
    let all: Vec<_> = (0..100).map(|number: u8| number.to_string()).collect();
    assert_eq!(crossed((0..100).map(data)), all);

    // With a wait after every third.
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

/// A body without end, of frames of the same size, which counts how many were asked for.
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
        (1, MOST, MOST),
        (1, 1, 1),
        (BATCH_BYTES / 2, MOST, 2),
        (BATCH_BYTES, MOST, 1),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let endless = Endless(Bytes::from(vec![0; size]), Arc::clone(&asked));
        let mut body = Imported::take(&mut export(endless, Here), at_once);
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
        // SAFETY: there is room for a frame.
        unsafe { *out = frame };
        poll::READY
    }
    unsafe extern "C" fn drop(_: *mut c_void) {}
    unsafe extern "C" fn behind(_: *mut c_void, _: *const abi::Waker, _: *mut abi::Frames) -> u32 {
        unreachable!("it is behind the end of the table");
    }
    // That of ABI 1.0, by its size.
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
        told(Imported::take(&mut body, MOST)),
        ["4", "3", "2", "1", "0"]
    );
}
