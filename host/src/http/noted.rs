//! What the host itself looks for in a request's headers.

use http::{HeaderName, HeaderValue, header::HOST, request::Parts};

/// The headers of a request that mean something to the host, found in one pass over all: names that
/// differ in kind are soon compared, sooner than these few are hashed.
#[derive(Debug, Default)]
pub(super) struct Noted<'a> {
    /// What the client says identifies the request.
    pub(super) id: Option<&'a [u8]>,
    /// The trace that the request is a part of.
    pub(super) trace: Option<&'a [u8]>,
    /// The last `host` field.
    pub(super) host: Option<&'a HeaderValue>,
    /// How many `host` fields there are.
    pub(super) hosts: usize,
}

impl<'a> Noted<'a> {
    /// Looks through the header fields of `head`.
    #[inline]
    pub(super) fn of(head: &'a Parts) -> Self {
        let mut noted = Self::default();
        for (name, value) in &head.headers {
            if *name == HOST {
                noted.hosts += 1;
                noted.host = Some(value);
            } else if *name == X_REQUEST_ID {
                noted.id.get_or_insert(value.as_bytes());
            } else if *name == TRACEPARENT {
                noted.trace.get_or_insert(value.as_bytes());
            }
        }
        noted
    }

    /// Looks again, when the fields were changed. Apart, so that the usual look has no copy.
    #[cold]
    pub(super) fn again(head: &'a Parts) -> Self {
        Self::of(head)
    }
}

/// What identifies a request, in it and in its response.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
