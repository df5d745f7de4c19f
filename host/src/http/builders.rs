//! How hyper is set up for each version of HTTP.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::delivery::Streams;
use crate::config::ClientLimits;

/// hyper's HTTP/1, within `limits`.
pub(super) fn http1(limits: &ClientLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `Activity` keeps the time: hyper's timer for heads also runs between two requests.
    // `Socket` looks whether the client is still there.
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes as usize)
        // A head has to fit in, with room for what is not a header.
        .max_buf_size(BUFFER.max(2 * limits.max_header_bytes as usize));
    if limits.max_headers != HTTP1_HEADERS {
        // It costs an allocation a request.
        builder.max_headers(limits.max_headers.into());
    }
    builder
}

/// hyper's HTTP/2, within `limits`.
pub(super) fn http2(limits: &ClientLimits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams::new(limits.body_timeout));
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_local_error_reset_streams(Some(ERRONEOUS_STREAMS));
    builder
}

/// Whether h2 ended the connection because its client made too much work (RFC 9113, section 7,
/// ENHANCE_YOUR_CALM).
pub(super) fn is_excessive(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// Up to how many bytes are read at once. The pieces of a large body that are no larger stay in memory
/// that is used again; the system's memory for larger ones is asked for, and given back, each time.
const BUFFER: usize = 64 << 10;

/// How many headers hyper takes in HTTP/1 without being told.
const HTTP1_HEADERS: u16 = 100;

/// How many streams a client may have open in one HTTP/2 connection: hyper's own number. So many may be
/// reset before they are looked at as well: a gateway may give up all of its requests in one moment,
/// and h2's own limit of 20 would end the connection with the requests that it did not give up. A
/// client that opens and resets streams faster than they are looked at still is cut off
/// (CVE-2023-44487).
const STREAMS: u32 = 200;

/// How many streams a client may have reset by errors of its own in one HTTP/2 connection, before the
/// connection ends: h2's own number, said here because the default of a dependency is no limit.
const ERRONEOUS_STREAMS: usize = 1024;
