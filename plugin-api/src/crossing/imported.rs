//! A body of the other side, used as an `http_body::Body`.

use std::{
    mem, ptr,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{PollWaker, add_fields};
use crate::{
    BodyError,
    abi::{self, OwnedBytes, poll},
};

/// A body of the other side.
#[derive(Debug)]
pub(crate) enum Imported {
    Empty,
    Full(OwnedBytes),
    /// Apart, so that the others, which are most, are small to move.
    Stream(Box<Foreign>),
}

/// What [`Body::poll_frame`] gives.
type Item = Option<Result<Frame<OwnedBytes>, BodyError>>;

/// A stream of the other side.
#[derive(Debug)]
pub(crate) struct Foreign {
    body: abi::Body,
    waker: PollWaker,
}

impl Imported {
    pub(crate) fn new(mut body: abi::Body) -> Self {
        match body.kind {
            abi::Body::FULL => Self::Full(mem::take(&mut body.data)),
            abi::Body::STREAM => Self::Stream(Box::new(Foreign {
                body,
                waker: PollWaker::default(),
            })),
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

    /// The next frame, as [`Body::poll_frame`].
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Item> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => {
                let (item, last) = ready!(stream.poll_frame(context));
                if last {
                    *self = Self::Empty;
                }
                Poll::Ready(item)
            }
        }
    }
}

impl Foreign {
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if self.body.upper != u64::MAX {
            hint.set_upper(self.body.upper.max(self.body.lower));
        }
        hint.set_lower(self.body.lower);
        hint
    }

    /// The next frame, and whether nothing follows it.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<(Item, bool)> {
        let mut frame = abi::Frame::end();
        // SAFETY: a stream has its table, which is static in a library that is never unloaded.
        let vtable = unsafe { &*self.body.vtable };
        let stream = self.body.stream;
        let polled = self.waker.lend(context.waker(), |waker| {
            // SAFETY: `self` owns the stream, `&mut` makes this thread the only one, and the
            // pointers are valid here.
            unsafe { (vtable.poll)(stream, waker, ptr::from_mut(&mut frame)) }
        });
        if polled == poll::PENDING {
            return Poll::Pending;
        }
        let last = frame.last != 0;
        let item = match frame.kind {
            abi::Frame::DATA => {
                let len = frame.data.remaining() as u64;
                self.body.lower = self.body.lower.saturating_sub(len);
                if self.body.upper != u64::MAX {
                    self.body.upper = self.body.upper.saturating_sub(len);
                }
                Some(Ok(Frame::data(frame.data)))
            }
            abi::Frame::TRAILERS => {
                let mut trailers = HeaderMap::new();
                // SAFETY: the trailers are borrowed from the stream, which is neither polled nor
                // dropped meanwhile.
                let added = unsafe { add_fields(&mut trailers, frame.trailers) };
                Some(match added {
                    Ok(()) => Ok(Frame::trailers(trailers)),
                    Err(error) => Err(BodyError(error.to_string())),
                })
            }
            abi::Frame::ERROR => Some(Err(BodyError(
                String::from_utf8_lossy(frame.data.as_ref()).into_owned(),
            ))),
            _ => None,
        };
        let last = last || item.is_none();
        Poll::Ready((item, last))
    }
}
