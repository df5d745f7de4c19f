//! The header fields of a request that the host itself reads.

use http::{HeaderName, HeaderValue, header::HOST, request::Parts};

/// The fields that the host reads, found in one pass over all fields of a request.
///
/// One pass costs less than a lookup for each field: a lookup hashes the name, but comparing two well-known
/// names is a comparison of numbers.
#[derive(Debug, Default)]
pub(super) struct HeaderScan<'a> {
    /// The first `x-request-id`.
    pub(super) id: Option<&'a [u8]>,
    /// The first `traceparent`.
    pub(super) trace: Option<&'a [u8]>,
    /// The last `host`.
    pub(super) host: Option<&'a HeaderValue>,
    /// How many `host` fields there are.
    pub(super) hosts: usize,
}

impl<'a> HeaderScan<'a> {
    /// Scans the header fields of `head`.
    #[inline]
    pub(super) fn of(head: &'a Parts) -> Self {
        let mut scan = Self::default();
        for (name, value) in &head.headers {
            if *name == HOST {
                scan.hosts += 1;
                scan.host = Some(value);
            } else if *name == X_REQUEST_ID {
                scan.id.get_or_insert(value.as_bytes());
            } else if *name == TRACEPARENT {
                scan.trace.get_or_insert(value.as_bytes());
            }
        }
        scan
    }

    /// Scans again after fields were changed. A separate function, because a second inlined copy of
    /// [`of`](Self::of) would make the usual path longer.
    #[cold]
    pub(super) fn again(head: &'a Parts) -> Self {
        Self::of(head)
    }
}

/// The field that carries the id of a request, in the request and in its response.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
