//! What the host itself looks for in a request's headers.

use http::{HeaderName, Version, header::HOST, request::Parts};

/// The headers of a request that mean something to the host, found in one pass over all: names that
/// differ in kind are soon compared, sooner than these few are hashed.
#[derive(Debug, Default)]
pub(super) struct Noted<'a> {
    /// What the client says identifies the request.
    pub(super) id: Option<&'a [u8]>,
    /// The trace that it is a part of.
    pub(super) trace: Option<&'a [u8]>,
    /// Whether it does not say once which host it is for, as HTTP/1.1 has it (RFC 9112, section 3.2).
    pub(super) is_malformed: bool,
}

impl<'a> Noted<'a> {
    /// What is in this head.
    pub(super) fn of(head: &'a Parts) -> Self {
        let mut noted = Self::default();
        let mut hosts = 0_u32;
        for (name, value) in &head.headers {
            if *name == HOST {
                hosts += 1;
            } else if *name == X_REQUEST_ID {
                noted.id.get_or_insert(value.as_bytes());
            } else if *name == TRACEPARENT {
                noted.trace.get_or_insert(value.as_bytes());
            }
        }
        noted.is_malformed = hosts != 1 && head.version == Version::HTTP_11;
        noted
    }
}

/// What identifies a request, in it and in its response.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
