//! Finds the header fields of a request that the host itself reads.

use http::{HeaderName, HeaderValue, header::HOST, request::Parts};

/// The fields that the host reads, found in one pass over all fields of a request.
///
/// One pass costs less than a lookup of each field: a lookup hashes the name, and a comparison of two well-known names
/// only compares numbers.
#[derive(Debug, Default)]
pub(super) struct HeaderScan<'a> {
    /// The value of the first `x-request-id` field.
    pub(super) request_id: Option<&'a [u8]>,
    /// The value of the first `traceparent` field.
    pub(super) traceparent: Option<&'a [u8]>,
    /// The value of the last `host` field.
    pub(super) host: Option<&'a HeaderValue>,
    /// The number of `host` fields.
    pub(super) host_count: usize,
}

impl<'a> HeaderScan<'a> {
    /// Scans the header fields of `head`.
    #[inline]
    pub(super) fn of(head: &'a Parts) -> Self {
        let mut scan = Self::default();
        for (name, value) in &head.headers {
            if *name == HOST {
                scan.host_count += 1;
                scan.host = Some(value);
            } else if *name == X_REQUEST_ID {
                scan.request_id.get_or_insert(value.as_bytes());
            } else if *name == TRACEPARENT {
                scan.traceparent.get_or_insert(value.as_bytes());
            }
        }
        scan
    }

    /// Scans the header fields again after some were changed. A separate function, because a second inlined copy of
    /// [`of`](Self::of) would make the usual path longer.
    #[cold]
    pub(super) fn rescan(head: &'a Parts) -> Self {
        Self::of(head)
    }
}

/// The field that carries the id of a request, in the request and in its response.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
