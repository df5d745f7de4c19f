//! The framing of responses: whether a response has a body, and how long its head says that the body is.
//!
//! A response whose `content-length` is not the length of its body makes the next response on the
//! connection a part of this one (RFC 9112, section 6.3). hyper leaves it to its user to prevent that.

use bytes::Buf;
use http::{
    HeaderMap, Method, Response, StatusCode, Version, header::CONTENT_LENGTH, request::Parts,
};
use http_body::{Frame, SizeHint};

/// The properties of a request that the framing of its response depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    is_http2: bool,
    is_head: bool,
    is_connect: bool,
}

/// How much of an app's body goes with its response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// Nothing: the status, or the request, allows no body.
    Nothing,
    /// The whole body, with the length that the head announces, if it does.
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

    /// Whether the response goes out over HTTP/2.
    pub(super) fn is_http2(self) -> bool {
        self.is_http2
    }

    /// Whether the response is to a `HEAD` over HTTP/2. hyper does not take the body off such a response.
    pub(super) fn is_http2_head(self) -> bool {
        self.is_http2 && self.is_head
    }

    /// Whether a response with this status has neither a body nor a length, whatever the app says (RFC
    /// 9110, sections 8.6, 15.3.5 and 15.4.5).
    pub(super) fn is_bodiless(self, status: StatusCode) -> bool {
        matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) || (self.is_connect && status.is_success())
    }

    /// Corrects the `content-length` of an app's response, whose body has the size `size`. Returns how
    /// much of the body goes with the response. From then on the head has at most one `content-length`,
    /// and it is true.
    ///
    /// # Errors
    ///
    /// When HTTP has no form for the response: the status is an interim one, or the length is not a
    /// number, or not the length of the body.
    pub(super) fn apply<B>(
        self,
        response: &mut Response<B>,
        size: impl FnOnce() -> SizeHint,
    ) -> Result<BodyFraming, FramingError> {
        let status = response.status();
        let may_have_body = status.as_u16() >= 200 && !self.is_bodiless(status);
        let mut names = response.headers().keys();
        // The usual response announces no length: hyper adds it.
        if may_have_body && !names.any(|name| *name == CONTENT_LENGTH) {
            return Ok(BodyFraming::Body(None));
        }
        self.apply_unusual(response, &size())
    }

    /// Does what [`apply`](Self::apply) does for a response with a length, or without a body.
    #[inline(never)]
    fn apply_unusual<B>(
        self,
        response: &mut Response<B>,
        size: &SizeHint,
    ) -> Result<BodyFraming, FramingError> {
        let status = response.status();
        // 101 is interim by its number, but over HTTP/1 it is the final response to an upgrade.
        let switches = status == StatusCode::SWITCHING_PROTOCOLS && !self.is_http2;
        if status.is_informational() && !switches {
            return Err(FramingError::Interim(status.as_u16()));
        }
        let announced = content_length(response.headers_mut())?;
        if self.is_bodiless(status) {
            if announced.is_some() {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            return Ok(BodyFraming::Nothing);
        }
        match announced {
            // The length is that of the response to a `GET`. The handler of a `HEAD` need not make the
            // body.
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

/// Returns the length that a head announces. Several fields with one value are replaced by one field.
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

/// Parses a length, which has digits only (RFC 9110, section 8.6). std would accept a sign as well.
fn parse_length(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// An app's response that HTTP has no form for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// The head announces two lengths.
    #[error("its content-length is {0} and {1}, expected one number")]
    Differs(u64, u64),
    /// The status announces another response.
    #[error("its status is {0}, which announces another response and is none")]
    Interim(u16),
    /// The length is not that of the body.
    #[error("its content-length is {announced}, but its body has {actual} bytes")]
    Length {
        /// The length in the head.
        announced: u64,
        /// The length of the body.
        actual: u64,
    },
    /// The length is not a number.
    #[error("its content-length is {0:?}, expected a number")]
    NotANumber(String),
}

/// Compares the bytes of a streamed body with the length that its head announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LengthCheck {
    /// None when the head announces no length.
    expected: Option<u64>,
    received: u64,
}

impl LengthCheck {
    /// Returns the check of a stream with this size hint. `announced` is the length in the head, if it has
    /// one; otherwise hyper announces a size that is exact.
    pub(super) fn of(announced: Option<u64>, size: &SizeHint) -> Self {
        Self {
            expected: announced.or(size.exact()),
            received: 0,
        }
    }

    /// Counts the bytes of a frame. None stands for the end of the body.
    ///
    /// # Errors
    ///
    /// When the body is longer or shorter than its head announces. The frame must not be sent then.
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
            None if received < expected => {
                return Err(LengthError::Shorter { expected, received });
            }
            None => {}
        }
        Ok(())
    }

    /// Whether bytes are missing so far.
    pub(super) fn is_short(&self) -> bool {
        self.expected
            .is_some_and(|expected| self.received < expected)
    }
}

/// A streamed body that is not as long as its head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// More bytes came.
    #[error("the body is longer than the {expected} bytes that its head says")]
    Longer {
        /// The length in the head.
        expected: u64,
    },
    /// The body ended before.
    #[error("the body ended after {received} of the {expected} bytes that its head says")]
    Shorter {
        /// The length in the head.
        expected: u64,
        /// How many bytes came.
        received: u64,
    },
}

#[cfg(test)]
mod tests;
