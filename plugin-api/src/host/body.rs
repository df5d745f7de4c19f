//! The body of a response, for the server.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};

use super::InFlight;
use crate::{BodyError, abi::OwnedBytes, crossing::ImportedBody};

/// The body of a response: a [`http_body::Body`] whose bytes the plugin has allocated.
#[derive(Debug)]
pub struct Body(
    pub(super) ImportedBody,
    /// Keeps the request in flight until the body is dropped.
    pub(super) InFlight,
);

impl Body {
    /// Returns the bytes of a body that is no stream. The caller drops the [`InFlight`] when the bytes are sent.
    ///
    /// # Errors
    ///
    /// Returns the body itself if it is a stream.
    pub fn into_whole(self) -> Result<(OwnedBytes, InFlight), Self> {
        match self.0 {
            ImportedBody::Empty => Ok((OwnedBytes::EMPTY, self.1)),
            ImportedBody::Full(bytes) => Ok((bytes, self.1)),
            ImportedBody::Stream(_) => Err(self),
        }
    }

    /// Returns whether the body is a stream. Polling and dropping a stream run code of the app.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.0, ImportedBody::Stream(_))
    }

    /// Returns the bytes of the next frame if an earlier poll has prefetched the frame. Runs no code of the app.
    pub fn take_prefetched(&mut self) -> Option<OwnedBytes> {
        self.0.take_prefetched()
    }
}

impl http_body::Body for Body {
    type Data = OwnedBytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, BodyError>>> {
        self.0.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
