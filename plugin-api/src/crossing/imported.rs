//! A body that the other side has passed, with the methods of `http_body::Body`.
//!
//! A call across the ABI costs more than a frame, so the host polls for a batch of frames of a response. The batch size
//! adapts to the stream: after a pending poll, the next poll requests one frame. Each later poll requests up to twice
//! as many frames as have arrived since then, up to [`ImportedBody::MAX_FRAMES_AT_ONCE`]. A stream of events, for
//! example, is pending between any two events, so it is always polled for one frame.

use std::{
    mem,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use smallvec::{SmallVec, smallvec};

use super::{PollWaker, cache};
use crate::{
    BodyError,
    abi::{self, OwnedBytes, poll},
};

/// A body that the other side has passed.
#[derive(Debug)]
pub(crate) enum ImportedBody {
    Empty,
    Full(OwnedBytes),
    /// Boxed to keep the enum small, because most bodies have one of the other variants and are moved often.
    Stream(Box<ImportedStream>),
}

/// The result of a poll: `None` at the end of the body.
type Item = Option<Result<Frame<OwnedBytes>, BodyError>>;

/// A stream of frames that the other side has passed.
#[derive(Debug)]
pub(crate) struct ImportedStream {
    body: abi::Body,
    waker: PollWaker,
    /// The maximum number of frames in a batch.
    max_frames: usize,
    /// The buffer for the frames of one poll. Has one element until the first poll for several frames.
    frames: SmallVec<[abi::Frame; 1]>,
    /// The index in `frames` of the next frame to return.
    next: usize,
    /// The number of frames that the last poll has written to `frames`.
    count: usize,
    /// The number of frames that have arrived since the last pending poll.
    ready: usize,
    /// Whether the last frame of the stream was returned.
    has_ended: bool,
}

/// The maximum size of a batch in bytes, because prefetched frames use memory. The frame that reaches the limit is the
/// last of its batch.
const BATCH_BYTES: usize = 32 << 10;

impl ImportedBody {
    /// The maximum number of frames of a response in one batch.
    #[cfg(any(feature = "host", all(test, feature = "local")))]
    pub(crate) const MAX_FRAMES_AT_ONCE: usize = 8;

    /// Moves `body` out and leaves an empty body behind. Polls of a stream request at most `max_frames` frames.
    pub(crate) fn take(body: &mut abi::Body, max_frames: usize) -> Self {
        match body.kind {
            abi::Body::FULL => {
                // Moves only the data, because moving the whole `abi::Body` copies 96 bytes.
                body.kind = abi::Body::EMPTY;
                Self::Full(mem::take(&mut body.data))
            }
            abi::Body::STREAM => {
                Self::Stream(Box::new(ImportedStream::new(body.take(), max_frames)))
            }
            _ => Self::Empty,
        }
    }

    /// Returns the number of bytes that are still to come, as far as known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.remaining() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }

    /// Returns whether the body has ended.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Returns whether the body is a stream, so that polls and the drop call the other side.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Returns the bytes of the next frame if an earlier poll has prefetched the frame. Runs no code of the other side.
    #[cfg(feature = "host")]
    pub(crate) fn take_prefetched(&mut self) -> Option<OwnedBytes> {
        let Self::Stream(stream) = self else {
            return None;
        };
        let bytes = stream.take_data()?;
        if stream.has_ended {
            *self = Self::Empty;
        }
        Some(bytes)
    }

    /// Polls for the next frame.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Item> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => {
                let item = ready!(stream.poll_frame(context));
                // Drops the stream at once, and makes `is_end_stream` true.
                if stream.has_ended {
                    *self = Self::Empty;
                }
                Poll::Ready(item)
            }
        }
    }
}

impl ImportedStream {
    fn new(body: abi::Body, max_frames: usize) -> Self {
        Self {
            body,
            waker: PollWaker::default(),
            max_frames,
            frames: smallvec![abi::Frame::end()],
            next: 0,
            count: 0,
            ready: 0,
            has_ended: false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if self.body.upper != u64::MAX {
            // `set_upper` and `set_lower` panic if the upper bound is below the lower one. The other side might send
            // such bounds.
            hint.set_upper(self.body.upper.max(self.body.lower));
        }
        hint.set_lower(self.body.lower);
        hint
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Item> {
        if self.next == self.count {
            ready!(self.poll_frames(context));
        }
        if let Some(bytes) = self.take_data() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        Poll::Ready(self.take_end())
    }

    /// Returns the bytes of the next prefetched frame. Returns `None` if no frame is prefetched, or if the next frame
    /// is not a data frame.
    fn take_data(&mut self) -> Option<OwnedBytes> {
        let frame = self.frames[..self.count].get_mut(self.next)?;
        if frame.kind != abi::Frame::DATA {
            return None;
        }
        self.next += 1;
        self.has_ended = frame.last != 0;
        let len = frame.data.remaining() as u64;
        self.body.lower = self.body.lower.saturating_sub(len);
        if self.body.upper != u64::MAX {
            self.body.upper = self.body.upper.saturating_sub(len);
        }
        Some(mem::take(&mut frame.data))
    }

    /// Returns the next prefetched frame, which is not a data frame. Every other kind of frame is the last one of its
    /// stream.
    fn take_end(&mut self) -> Item {
        let frame = &self.frames[self.next];
        self.next += 1;
        self.has_ended = true;
        match frame.kind {
            abi::Frame::TRAILERS => {
                let mut map = HeaderMap::new();
                // SAFETY: the trailers are valid until the stream is polled again or dropped, and neither happens in
                // this function.
                let fields = unsafe { frame.trailers.view() };
                Some(match cache::with(|cache| cache.add(&mut map, fields)) {
                    Ok(()) => Ok(Frame::trailers(map)),
                    Err(error) => Err(BodyError(error.to_string())),
                })
            }
            abi::Frame::ERROR => Some(Err(BodyError(
                String::from_utf8_lossy(frame.data.as_ref()).into_owned(),
            ))),
            // `abi::Frame::END`
            _ => None,
        }
    }

    /// Polls the other side for frames and stores them in `frames`.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let vtable = self.body.vtable;
        let stream = self.body.stream;
        // SAFETY: `vtable` is the table of `stream`.
        let poll_frames = unsafe { abi::BodyVtable::poll_frames_fn(vtable) };
        // After a pending poll, `ready` is 0, and one frame is requested.
        let poll_frames = poll_frames.filter(|_| self.ready > 0 && self.max_frames > 1);
        if poll_frames.is_some() && self.frames.len() < self.max_frames {
            self.frames.resize_with(self.max_frames, abi::Frame::end);
        }
        let mut frames = abi::Frames {
            size: size_of::<abi::Frames>(),
            frames: self.frames.as_mut_ptr(),
            room: self.max_frames.min(2 * self.ready),
            enough: BATCH_BYTES,
            // The result if `poll` is called below, which does not set the count.
            count: 1,
        };
        let polled = self
            .waker
            .with_abi(context.waker(), |waker| match poll_frames {
                // SAFETY: `self` owns the stream, and `&mut self` excludes other threads. `waker` and `frames` are valid
                // until the function returns, and the array has at least `room` frames.
                Some(poll_frames) => unsafe { poll_frames(stream, waker, &raw mut frames) },
                None => {
                    // SAFETY: `vtable` is the table of `stream`. The table is never freed, because libraries are never
                    // unloaded.
                    let poll = unsafe { (*vtable).poll };
                    // SAFETY: `self` owns the stream, and `&mut self` excludes other threads. `waker` is valid, and the
                    // array has at least one frame.
                    unsafe { poll(stream, waker, frames.frames) }
                }
            });
        if polled == poll::PENDING {
            (self.count, self.next, self.ready) = (0, 0, 0);
            return Poll::Pending;
        }
        (self.count, self.next) = (frames.count, 0);
        self.ready += frames.count;
        Poll::Ready(())
    }
}

#[cfg(all(test, any(feature = "host", feature = "local")))]
mod tests;
