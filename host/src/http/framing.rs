//! How much of a body goes with a response, and that its head says so truly: a length that is not the
//! body's makes the next response on the connection a part of this one (RFC 9112, section 6.3).

use bytes::Buf;
use http::{
    HeaderMap, Method, Response, StatusCode, Version, header::CONTENT_LENGTH, request::Parts,
};
use http_body::{Frame, SizeHint};

/// What the body of a response depends on in its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    is_http2: bool,
    is_head: bool,
    is_connect: bool,
}

/// How much of an app's body goes with its response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// None: the status, or the request, does not allow a body.
    Nothing,
    /// All of it, and how long the head says that it is, if it does.
    Body(Option<u64>),
}

impl Framing {
    /// The framing of the responses to this request.
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

    /// Whether the body has to be taken off a response, which hyper leaves to its user for a `HEAD` of
    /// HTTP/2.
    pub(super) fn is_http2_head(self) -> bool {
        self.is_http2 && self.is_head
    }

    /// Whether a response with this status has no body, nor a length, whatever the app says (RFC 9110,
    /// sections 8.6, 15.3.5 and 15.4.5).
    pub(super) fn is_bodiless(self, status: StatusCode) -> bool {
        matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) || (self.is_connect && status.is_success())
    }

    /// How much of a body of this size goes with an app's response. Its `content-length` is in the head
    /// once at most from then on, and true.
    ///
    /// # Errors
    ///
    /// When no honest response can be made of it: the status is an interim one, or the length is not a
    /// number or not the body's.
    pub(super) fn content<B>(
        self,
        response: &mut Response<B>,
        size: impl FnOnce() -> SizeHint,
    ) -> Result<Content, Misframed> {
        let status = response.status();
        let may_have_body = status.as_u16() >= 200 && !self.is_bodiless(status);
        let mut names = response.headers().keys();
        if may_have_body && !names.any(|name| *name == CONTENT_LENGTH) {
            return Ok(Content::Body(None));
        }
        self.checked(response, &size())
    }

    /// The same, for what is less usual.
    #[inline(never)]
    fn checked<B>(self, response: &mut Response<B>, size: &SizeHint) -> Result<Content, Misframed> {
        let status = response.status();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS && !self.is_http2;
        if status.is_informational() && !switches {
            return Err(Misframed::Interim(status.as_u16()));
        }
        let said = said(response.headers_mut())?;
        if self.is_bodiless(status) {
            if said.is_some() {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            return Ok(Content::Nothing);
        }
        match said {
            // The length of what a `GET` would get: a handler of `HEAD` may have made no body.
            Some(_) if self.is_head && size.exact() == Some(0) => {}
            Some(said) if said < size.lower() || size.upper().is_some_and(|upper| said > upper) => {
                let actual = size.exact().unwrap_or(size.lower());
                return Err(Misframed::Length { said, actual });
            }
            _ => {}
        }
        Ok(Content::Body(said))
    }
}

/// The length that a head says. One that is said several times is said once from then on.
fn said(headers: &mut HeaderMap) -> Result<Option<u64>, Misframed> {
    let mut said = None;
    let mut is_said_again = false;
    for (name, value) in &*headers {
        if *name != CONTENT_LENGTH {
            continue;
        }
        let Some(length) = number(value.as_bytes()) else {
            let text = String::from_utf8_lossy(value.as_bytes());
            return Err(Misframed::NoNumber(text.into_owned()));
        };
        match said {
            Some(other) if other != length => return Err(Misframed::Differs(other, length)),
            Some(_) => is_said_again = true,
            None => said = Some(length),
        }
    }
    if let (Some(said), true) = (said, is_said_again) {
        headers.insert(CONTENT_LENGTH, said.into());
    }
    Ok(said)
}

/// The number of these digits (RFC 9110, section 8.6), where std takes a sign as well.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// An app's response that HTTP has no form for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misframed {
    /// Two lengths.
    #[error("its content-length is {0} and {1}, expected one number")]
    Differs(u64, u64),
    /// A status that announces another response.
    #[error("its status is {0}, which announces another response and is none")]
    Interim(u16),
    /// A length that is not the body's.
    #[error("its content-length is {said}, but its body has {actual} bytes")]
    Length {
        /// What the head says.
        said: u64,
        /// What is there.
        actual: u64,
    },
    /// Something else than a number.
    #[error("its content-length is {0:?}, expected a number")]
    NoNumber(String),
}

/// How long a streamed body is, where its head says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Length {
    expected: Option<u64>,
    passed: u64,
}

impl Length {
    /// The length of a stream of this size, of which the head says that it is so long, if it does. A
    /// size that is exact is said by hyper where the app says nothing.
    pub(super) fn of(said: Option<u64>, size: &SizeHint) -> Self {
        Self {
            expected: said.or(size.exact()),
            passed: 0,
        }
    }

    /// Counts a frame, or the end of the body for none.
    ///
    /// # Errors
    ///
    /// When the body is not as long as its head says; the frame must not be sent then.
    pub(super) fn pass<D: Buf>(&mut self, frame: Option<&Frame<D>>) -> Result<(), WrongLength> {
        let Self {
            expected: Some(expected),
            passed,
        } = *self
        else {
            return Ok(());
        };
        match frame.and_then(Frame::data_ref) {
            Some(data) => {
                self.passed = passed.saturating_add(data.remaining() as u64);
                if self.passed > expected {
                    return Err(WrongLength::Longer { expected });
                }
            }
            None if passed < expected => return Err(WrongLength::Shorter { expected, passed }),
            None => {}
        }
        Ok(())
    }

    /// Whether bytes are missing so far.
    pub(super) fn is_short(&self) -> bool {
        self.expected.is_some_and(|expected| self.passed < expected)
    }
}

/// A streamed body that is not as long as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongLength {
    /// There were more bytes.
    #[error("the body is longer than the {expected} bytes that its head says")]
    Longer {
        /// What the head says.
        expected: u64,
    },
    /// The body ended before.
    #[error("the body ended after {passed} of the {expected} bytes that its head says")]
    Shorter {
        /// What the head says.
        expected: u64,
        /// What came.
        passed: u64,
    },
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn framing(version: Version, method: &str) -> Framing {
        let request = Request::builder().version(version).method(method).body(());
        Framing::of(&request.unwrap().into_parts().0)
    }

    fn response(status: u16, lengths: &[&str]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for length in lengths {
            response = response.header(CONTENT_LENGTH, *length);
        }
        response.body(()).unwrap()
    }

    /// What goes with a response, and the lengths that its head says then.
    fn content(
        framing: Framing,
        mut response: Response<()>,
        size: &SizeHint,
    ) -> (Result<Content, Misframed>, Vec<String>) {
        let content = framing.content(&mut response, || *size);
        let lengths = response.headers().get_all(CONTENT_LENGTH).iter();
        let lengths = lengths.map(|length| length.to_str().unwrap().to_owned());
        (content, lengths.collect())
    }

    fn body(said: Option<u64>) -> Result<Content, Misframed> {
        Ok(Content::Body(said))
    }

    #[test]
    fn a_length_is_that_of_the_body_or_an_error() {
        let unknown = SizeHint::new();
        let four = SizeHint::with_exact(4);
        let wrong = |said, actual| Err(Misframed::Length { said, actual });
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let get = framing(version, "GET");
            let head = framing(version, "HEAD");
            for (framing, lengths, size, expected) in [
                (get, &[][..], &four, body(None)),
                (get, &[], &unknown, body(None)),
                (get, &["4"], &four, body(Some(4))),
                (get, &["04"], &four, body(Some(4))),
                (get, &["4", "4"], &four, body(Some(4))),
                (get, &["4"], &unknown, body(Some(4))),
                (get, &["5"], &four, wrong(5, 4)),
                (get, &["0"], &four, wrong(0, 4)),
                (get, &["5"], &SizeHint::with_exact(0), wrong(5, 0)),
                (get, &["5", "4"], &four, Err(Misframed::Differs(5, 4))),
                (get, &["x"], &four, Err(Misframed::NoNumber("x".into()))),
                (get, &["+4"], &four, Err(Misframed::NoNumber("+4".into()))),
                (
                    get,
                    &["4, 4"],
                    &four,
                    Err(Misframed::NoNumber("4, 4".into())),
                ),
                (
                    get,
                    &[""],
                    &unknown,
                    Err(Misframed::NoNumber(String::new())),
                ),
                (head, &["5"], &SizeHint::with_exact(0), body(Some(5))),
                (head, &["5"], &unknown, body(Some(5))),
                (head, &["5"], &four, wrong(5, 4)),
                (head, &["x"], &unknown, Err(Misframed::NoNumber("x".into()))),
            ] {
                let (content, said) = content(framing, response(200, lengths), size);
                assert_eq!(content, expected, "{framing:?} {lengths:?}");
                if content.is_ok() {
                    let once = lengths.first().map(|length| number(length.as_bytes()));
                    let said: Vec<_> = said.iter().map(|said| number(said.as_bytes())).collect();
                    assert_eq!(said, Vec::from_iter(once), "{framing:?} {lengths:?}");
                }
            }
        }
    }

    #[test]
    fn a_length_within_the_bounds_of_a_stream_may_be_right() {
        let mut size = SizeHint::new();
        size.set_lower(2);
        size.set_upper(4);
        let get = framing(Version::HTTP_11, "GET");
        for (said, is_right) in [("1", false), ("2", true), ("4", true), ("5", false)] {
            let (content, _) = content(get, response(200, &[said]), &size);
            assert_eq!(content.is_ok(), is_right, "{said}");
        }
    }

    #[test]
    fn what_has_no_body_has_no_length() {
        let four = SizeHint::with_exact(4);
        for (version, method, status) in [
            (Version::HTTP_11, "GET", 204),
            (Version::HTTP_2, "GET", 304),
            (Version::HTTP_2, "HEAD", 204),
            (Version::HTTP_11, "GET", 101),
            (Version::HTTP_11, "CONNECT", 200),
            (Version::HTTP_2, "CONNECT", 299),
        ] {
            for lengths in [&[][..], &["4"], &["9", "9"]] {
                let content = content(framing(version, method), response(status, lengths), &four);
                assert_eq!(content, (Ok(Content::Nothing), vec![]), "{method} {status}");
            }
        }
    }

    #[test]
    fn a_status_that_announces_another_response_is_none() {
        for (version, status) in [
            (Version::HTTP_11, 100),
            (Version::HTTP_11, 103),
            (Version::HTTP_2, 103),
            (Version::HTTP_2, 101),
        ] {
            let get = framing(version, "GET");
            let (content, _) = content(get, response(status, &[]), &SizeHint::with_exact(0));
            assert_eq!(content, Err(Misframed::Interim(status)));
        }
    }

    #[test]
    fn a_stream_is_as_long_as_its_head_says() {
        let data = |text: &'static str| Frame::data(text.as_bytes());
        let mut length = Length::of(None, &SizeHint::with_exact(4));
        assert_eq!(length, Length::of(Some(4), &SizeHint::new()));
        assert_eq!(length.pass(Some(&data("ab"))), Ok(()));
        assert!(length.is_short());
        let shorter = WrongLength::Shorter {
            expected: 4,
            passed: 2,
        };
        assert_eq!(length.pass::<&[u8]>(None), Err(shorter));
        assert_eq!(length.pass(Some(&data("cd"))), Ok(()));
        assert!(!length.is_short());
        let trailers = Frame::<&[u8]>::trailers(HeaderMap::new());
        assert_eq!(length.pass(Some(&trailers)), Ok(()));
        assert_eq!(length.pass::<&[u8]>(None), Ok(()));
        let longer = WrongLength::Longer { expected: 4 };
        assert_eq!(length.pass(Some(&data("e"))), Err(longer));

        let mut unknown = Length::default();
        assert_eq!(unknown.pass(Some(&data("any"))), Ok(()));
        assert!(!unknown.is_short());
        assert_eq!(unknown.pass::<&[u8]>(None), Ok(()));
    }
}
