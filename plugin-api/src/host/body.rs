//! The body of a response, as the server reads it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};

use super::InFlight;
use crate::{BodyError, abi::OwnedBytes, crossing::ImportedBody};

/// The body of a response: a [`http_body::Body`] of bytes that the plugin owns.
#[derive(Debug)]
pub struct Body(
    pub(super) ImportedBody,
    /// The request is in the app for as long as the body is there.
    pub(super) InFlight,
);

impl Body {
    /// The bytes of a body that is no stream. The [`InFlight`] is to be dropped when they are sent.
    ///
    /// # Errors
    ///
    /// The body itself when it is a stream.
    pub fn into_whole(self) -> Result<(OwnedBytes, InFlight), Self> {
        match self.0 {
            ImportedBody::Empty => Ok((OwnedBytes::EMPTY, self.1)),
            ImportedBody::Full(bytes) => Ok((bytes, self.1)),
            ImportedBody::Stream(_) => Err(self),
        }
    }

    /// Whether the body is a stream. Then code of the app's runs for its frames, and when it is dropped.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.0, ImportedBody::Stream(_))
    }

    /// The next bytes, if the last poll gave them already. Runs no code of the app's.
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
