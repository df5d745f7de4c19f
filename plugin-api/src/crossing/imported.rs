//! A body of the other side, used as an `http_body::Body`.
//!
//! A crossing costs more than a frame, so the server asks for several frames of a response at once. It does so only
//! while frames come without a wait: after a pending poll the next request is for one frame, and each frame that is
//! ready doubles how many may come at once, up to [`Imported::SEVERAL`]. A stream of events, say, is then asked for
//! one frame at a time, and nothing of it is held back.

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

/// A body of the other side.
#[derive(Debug)]
pub(crate) enum Imported {
    Empty,
    Full(OwnedBytes),
    /// In a box, so that the other variants, which are the most frequent, are small to move.
    Stream(Box<Foreign>),
}

/// What `http_body::Body::poll_frame` gives.
type Item = Option<Result<Frame<OwnedBytes>, BodyError>>;

/// A stream of the other side.
#[derive(Debug)]
pub(crate) struct Foreign {
    body: abi::Body,
    waker: PollWaker,
    /// How many frames may be asked for at once.
    limit: usize,
    /// The frames of the last poll. One place, until more are asked for.
    frames: SmallVec<[abi::Frame; 1]>,
    /// The index of the next frame to give.
    next: usize,
    /// How many frames the last poll gave.
    count: usize,
    /// How many frames came since the last pending poll.
    ready: usize,
    /// Whether the last frame was given.
    ended: bool,
}

/// A batch ends when it has this many bytes, because frames that are taken ahead use memory.
const BATCH_BYTES: usize = 32 << 10;

impl Imported {
    /// How many frames of a response are asked for at once, at most.
    #[cfg(any(feature = "host", all(test, feature = "local")))]
    pub(crate) const SEVERAL: usize = 8;

    /// Takes a body, and leaves an empty one. At most `limit` frames are asked for at once.
    pub(crate) fn take(body: &mut abi::Body, limit: usize) -> Self {
        match body.kind {
            abi::Body::FULL => {
                body.kind = abi::Body::EMPTY;
                Self::Full(mem::take(&mut body.data))
            }
            abi::Body::STREAM => Self::Stream(Box::new(Foreign::new(body.take(), limit))),
            _ => Self::Empty,
        }
    }

    /// How many bytes are still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.remaining() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether frames are asked for across the boundary.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The next bytes, if the last poll gave them already. Runs no code of the other side.
    #[cfg(feature = "host")]
    pub(crate) fn take_ahead(&mut self) -> Option<OwnedBytes> {
        let Self::Stream(stream) = self else {
            return None;
        };
        let bytes = stream.take_data()?;
        if stream.ended {
            *self = Self::Empty;
        }
        Some(bytes)
    }

    /// The next frame.
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
                if stream.ended {
                    *self = Self::Empty;
                }
                Poll::Ready(item)
            }
        }
    }
}

impl Foreign {
    fn new(body: abi::Body, limit: usize) -> Self {
        Self {
            body,
            waker: PollWaker::default(),
            limit,
            frames: smallvec![abi::Frame::end()],
            next: 0,
            count: 0,
            ready: 0,
            ended: false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if self.body.upper != u64::MAX {
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
        Poll::Ready(self.end())
    }

    /// The bytes of the next frame of the last poll, if there is one and it is data.
    fn take_data(&mut self) -> Option<OwnedBytes> {
        let frame = self.frames[..self.count].get_mut(self.next)?;
        if frame.kind != abi::Frame::DATA {
            return None;
        }
        self.next += 1;
        self.ended = frame.last != 0;
        let len = frame.data.remaining() as u64;
        self.body.lower = self.body.lower.saturating_sub(len);
        if self.body.upper != u64::MAX {
            self.body.upper = self.body.upper.saturating_sub(len);
        }
        Some(mem::take(&mut frame.data))
    }

    /// The next frame, which is no data, and so is the last.
    fn end(&mut self) -> Item {
        let frame = &self.frames[self.next];
        self.next += 1;
        self.ended = true;
        match frame.kind {
            abi::Frame::TRAILERS => {
                let mut map = HeaderMap::new();
                // SAFETY: the trailers are borrowed from the stream, which is neither polled nor
                // dropped meanwhile: they are its last frame.
                let fields = unsafe { frame.trailers.view() };
                Some(match cache::with(|cache| cache.add(&mut map, fields)) {
                    Ok(()) => Ok(Frame::trailers(map)),
                    Err(error) => Err(BodyError(error.to_string())),
                })
            }
            abi::Frame::ERROR => Some(Err(BodyError(
                String::from_utf8_lossy(frame.data.as_ref()).into_owned(),
            ))),
            // The end.
            _ => None,
        }
    }

    /// Asks the other side for frames.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let vtable = self.body.vtable;
        let stream = self.body.stream;
        // SAFETY: a stream has its table.
        let several = unsafe { abi::BodyVtable::poll_frames_fn(vtable) };
        let several = several.filter(|_| self.ready > 0 && self.limit > 1);
        if several.is_some() && self.frames.len() < self.limit {
            self.frames.resize_with(self.limit, abi::Frame::end);
        }
        let mut frames = abi::Frames {
            size: size_of::<abi::Frames>(),
            frames: self.frames.as_mut_ptr(),
            room: self.limit.min(2 * self.ready),
            enough: BATCH_BYTES,
            count: 1,
        };
        let polled = self.waker.lend(context.waker(), |waker| match several {
            // SAFETY: `self` owns the stream, `&mut` makes this thread the only one, and the
            // pointers are valid here.
            Some(poll_frames) => unsafe { poll_frames(stream, waker, &raw mut frames) },
            None => {
                // SAFETY: a stream has its table, which is static in a library that is never
                // unloaded.
                let poll = unsafe { (*vtable).poll };
                // SAFETY: as above; there is room for one.
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
