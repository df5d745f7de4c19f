//! The settings of hyper for each version of HTTP.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::delivery::StreamExecutor;
use crate::config::ClientLimits;

/// Returns the builder of HTTP/1 connections.
pub(super) fn http1(limits: &ClientLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Two jobs of hyper are done elsewhere. `Activity` has the time limit of heads, because hyper's timer
    // also runs between two requests. `Socket` looks whether the client is still there.
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes as usize)
        // A head has to fit into the buffer, together with some of a body.
        .max_buf_size(BUFFER.max(2 * limits.max_header_bytes as usize));
    if limits.max_headers != HTTP1_HEADERS {
        // Only when needed, because hyper then allocates for every request.
        builder.max_headers(limits.max_headers.into());
    }
    builder
}

/// Returns the builder of HTTP/2 connections.
pub(super) fn http2(limits: &ClientLimits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor::new(limits.body_timeout));
    builder
        .timer(TokioTimer::new())
        // For WebSockets over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_local_error_reset_streams(Some(ERRONEOUS_STREAMS));
    builder
}

/// Whether h2 ended the connection because the client caused too much work (ENHANCE_YOUR_CALM, RFC 9113,
/// section 7).
pub(super) fn is_excessive(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// Up to how many bytes are read at once. The allocator keeps a freed buffer of this size for the next frame
/// of a body. It would take the memory of a larger buffer from the system for every frame.
const BUFFER: usize = 64 << 10;

/// How many header fields hyper accepts over HTTP/1 by default.
const HTTP1_HEADERS: u16 = 100;

/// How many streams a client may have open in one HTTP/2 connection. This is hyper's default.
///
/// As many streams may also be reset before hyper has accepted them. A gateway may cancel all of its
/// requests in one moment, and h2's default of 20 would then end the connection together with other
/// requests. A client that opens and resets streams faster than hyper accepts them is still disconnected
/// (CVE-2023-44487).
const STREAMS: u32 = 200;

/// How many streams of one HTTP/2 connection may be reset because of errors of the client, before the
/// connection ends. This is h2's default, repeated here because a limit must not depend on the defaults of
/// a dependency.
const ERRONEOUS_STREAMS: usize = 1024;
