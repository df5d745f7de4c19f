//! The framing of responses: whether a response has a body, and which length its head announces.
//!
//! If the `content-length` of a response is not the length of its body, the client reads the wrong bytes as
//! the next response on the connection (RFC 9112, section 6.3). hyper does not check that.

use bytes::Buf;
use http::{
    HeaderMap, Method, Response, StatusCode, Version, header::CONTENT_LENGTH, request::Parts,
};
use http_body::{Frame, SizeHint};

/// The properties of a request on which the framing of its response depends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    /// Whether the version of the request is HTTP/2.
    is_http2: bool,
    /// Whether the method is `HEAD`.
    is_head: bool,
    /// Whether the method is `CONNECT`.
    is_connect: bool,
}

/// The result of [`Framing::apply`]: whether the response has a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// The response has no body, because its status, or the request, allows no body.
    NoBody,
    /// The response has the app's body. The length is the `content-length` of the head, if the head has that field.
    Body(Option<u64>),
}

impl Framing {
    /// Returns the framing of the response to this request.
    pub(super) fn of(head: &Parts) -> Self {
        Self {
            is_http2: head.version == Version::HTTP_2,
            is_head: head.method == Method::HEAD,
            is_connect: head.method == Method::CONNECT,
        }
    }

    /// Returns whether the response is sent over HTTP/2.
    pub(super) fn is_http2(self) -> bool {
        self.is_http2
    }

    /// Returns whether the response is to a `HEAD` request over HTTP/2. hyper does not remove the body of such a
    /// response.
    pub(super) fn is_http2_head(self) -> bool {
        self.is_http2 && self.is_head
    }

    /// Returns whether a response with this status must have neither a body nor a `content-length` (RFC 9110, sections
    /// 8.6, 15.3.5 and 15.4.5).
    pub(super) fn is_bodiless(self, status: StatusCode) -> bool {
        matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) || (self.is_connect && status.is_success())
    }

    /// Checks and corrects the `content-length` of an app's response. `size` returns the size hint of the body. Returns
    /// whether the response has a body.
    ///
    /// Afterwards the head has at most one `content-length`. The length of a streamed body may still differ, which
    /// [`LengthCheck`] finds.
    ///
    /// # Errors
    ///
    /// When the response cannot be sent as HTTP: its status is an interim status, its `content-length` is not one
    /// number, or is not the length of the body.
    pub(super) fn apply<B>(
        self,
        response: &mut Response<B>,
        size: impl FnOnce() -> SizeHint,
    ) -> Result<BodyFraming, FramingError> {
        let status = response.status();
        let may_have_body = status.as_u16() >= 200 && !self.is_bodiless(status);
        let mut names = response.headers().keys();
        // The usual response has no `content-length`. hyper adds the field.
        if may_have_body && !names.any(|name| *name == CONTENT_LENGTH) {
            return Ok(BodyFraming::Body(None));
        }
        self.apply_unusual(response, &size())
    }

    /// Does the work of [`apply`](Self::apply) for a response with a `content-length`, or without a body.
    /// Never inlined, because the usual path is then shorter.
    #[inline(never)]
    fn apply_unusual<B>(
        self,
        response: &mut Response<B>,
        size: &SizeHint,
    ) -> Result<BodyFraming, FramingError> {
        let status = response.status();
        // 101 is an interim status by its number, but over HTTP/1 it is the final response to an upgrade.
        let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS && !self.is_http2;
        if status.is_informational() && !is_upgrade {
            return Err(FramingError::Interim(status.as_u16()));
        }
        // Before the check of the status: two different lengths are an error in every response.
        let announced = content_length(response.headers_mut())?;
        if self.is_bodiless(status) {
            if announced.is_some() {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            return Ok(BodyFraming::NoBody);
        }
        match announced {
            // The length in a response to `HEAD` is the length that the response to `GET` would have. The app need not
            // create the body for a `HEAD`.
            Some(_) if self.is_head && size.exact() == Some(0) => {}
            Some(announced)
                if announced < size.lower()
                    || size.upper().is_some_and(|upper| announced > upper) =>
            {
                let actual = size.exact().unwrap_or(size.lower());
                return Err(FramingError::Length { announced, actual });
            }
            _ => {}
        }
        Ok(BodyFraming::Body(announced))
    }
}

/// Returns the `content-length` of a head. Replaces several fields with the same value by one field.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, FramingError> {
    let mut announced = None;
    let mut is_repeated = false;
    for (name, value) in &*headers {
        if *name != CONTENT_LENGTH {
            continue;
        }
        let Some(length) = parse_length(value.as_bytes()) else {
            let text = String::from_utf8_lossy(value.as_bytes());
            return Err(FramingError::NotANumber(text.into_owned()));
        };
        match announced {
            Some(other) if other != length => return Err(FramingError::Differs(other, length)),
            Some(_) => is_repeated = true,
            None => announced = Some(length),
        }
    }
    // Equal fields may be merged into one (RFC 9110, section 8.6).
    if let (Some(length), true) = (announced, is_repeated) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(announced)
}

/// Parses a `content-length`, which has only digits (RFC 9110, section 8.6). `str::parse` would also accept a sign.
fn parse_length(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// Why an app's response cannot be sent as HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// The head has two different lengths.
    #[error("its content-length is {0} and {1}, expected one number")]
    Differs(u64, u64),
    /// The status is an interim status, which announces another response.
    #[error("its status is {0}, which is informational, expected a final status")]
    Interim(u16),
    /// The `content-length` is not the length of the body.
    #[error("its content-length is {announced}, but its body has {actual} bytes")]
    Length {
        /// The `content-length` of the head.
        announced: u64,
        /// The length of the body, or its minimum if the exact length is not known.
        actual: u64,
    },
    /// The `content-length` is not a number.
    #[error("its content-length is {0:?}, expected a number")]
    NotANumber(String),
}

/// Compares the number of bytes of a streamed body with the length that the head announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LengthCheck {
    /// The length that the head announces. `None` if the head announces no length.
    expected: Option<u64>,
    /// The number of bytes that the body has returned.
    received: u64,
}

impl LengthCheck {
    /// Creates the check of a stream with the size hint `size`. `announced` is the `content-length` of the head. If the
    /// head has no such field, hyper announces the size if it is exact.
    pub(super) fn of(announced: Option<u64>, size: &SizeHint) -> Self {
        Self {
            expected: announced.or(size.exact()),
            received: 0,
        }
    }

    /// Counts the bytes of a frame. `None` is the end of the body.
    ///
    /// # Errors
    ///
    /// When the body is longer or shorter than the head announces. The frame must not be sent then.
    pub(super) fn count<D: Buf>(&mut self, frame: Option<&Frame<D>>) -> Result<(), LengthError> {
        let Self {
            expected: Some(expected),
            received,
        } = *self
        else {
            return Ok(());
        };
        match frame.and_then(Frame::data_ref) {
            Some(data) => {
                self.received = received.saturating_add(data.remaining() as u64);
                if self.received > expected {
                    return Err(LengthError::Longer { expected });
                }
            }
            // The end of the body, or trailers, which come before the end.
            None if received < expected => {
                return Err(LengthError::Shorter { expected, received });
            }
            None => {}
        }
        Ok(())
    }

    /// Returns whether the body has returned fewer bytes than the head announces.
    pub(super) fn is_short(&self) -> bool {
        self.expected
            .is_some_and(|expected| self.received < expected)
    }
}

/// The length of a streamed body is not the length that the head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The body has more bytes.
    #[error("the body is longer than the {expected} bytes that its head says")]
    Longer {
        /// The length that the head announces.
        expected: u64,
    },
    /// The body has fewer bytes.
    #[error("the body ended after {received} of the {expected} bytes that its head says")]
    Shorter {
        /// The length that the head announces.
        expected: u64,
        /// The number of bytes that the body returned.
        received: u64,
    },
}

#[cfg(test)]
mod tests;
