//! The settings of hyper for each version of HTTP, as connection builders.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::delivery::Http2Executor;
use crate::config::ClientLimits;

/// Returns the builder of HTTP/1 connections.
pub(super) fn http1(limits: &ClientLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Two checks of hyper are turned off, because the host does them. `Activity` has the time limit of heads, because
    // hyper's timer also runs between two requests. `Socket` detects that the client has closed its sending side.
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes as usize)
        // A head has to fit into the buffer, together with a part of a body.
        .max_buf_size(READ_BUFFER_BYTES.max(2 * limits.max_header_bytes as usize));
    if limits.max_headers != HYPER_DEFAULT_MAX_HEADERS {
        // Only if the limit is another than hyper's, because hyper then allocates for every request.
        builder.max_headers(limits.max_headers.into());
    }
    builder
}

/// Returns the builder of HTTP/2 connections.
pub(super) fn http2(limits: &ClientLimits) -> http2::Builder<Http2Executor> {
    let mut builder = http2::Builder::new(Http2Executor::new(limits.body_timeout));
    builder
        .timer(TokioTimer::new())
        // Required for WebSockets over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS));
    builder
}

/// Returns whether h2 ended the connection because the client caused too much work (ENHANCE_YOUR_CALM, RFC 9113,
/// section 7).
pub(super) fn is_enhance_your_calm(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// The maximum number of bytes that hyper reads at once, unless a head may be larger. The allocator reuses a freed
/// buffer of this size for the next frame of a body. It would get the memory of a larger buffer from the system for
/// every frame.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// The maximum number of header fields that hyper accepts over HTTP/1 by default.
const HYPER_DEFAULT_MAX_HEADERS: u16 = 100;

/// The maximum number of streams that a client may have open in one HTTP/2 connection. The value is hyper's default.
///
/// The number is also the limit for streams that the client resets before hyper has accepted them. A gateway may
/// cancel all of its requests at once, and h2's default limit of 20 would then end the connection with all other
/// requests. A client that opens and resets streams faster than hyper accepts them is still disconnected
/// (CVE-2023-44487).
const MAX_STREAMS: u32 = 200;

/// The maximum number of streams of one HTTP/2 connection that are reset because of errors of the client. The
/// connection ends when the client causes more. The value is h2's default, and is set explicitly because a limit must
/// not depend on the defaults of a dependency.
const MAX_ERROR_RESETS: usize = 1024;
