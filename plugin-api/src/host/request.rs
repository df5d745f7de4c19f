//! What an app is told of a request beside the request.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{InFlight, caught::Caught, stream::export_stream};
use crate::{abi, crossing::PanicBoundary};

/// What the app is told of a request beside the request.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where the app is mounted: a prefix of the request's path, on a segment's boundary.
    pub mount: &'a str,
    /// The address of the client, or of the proxy before the server.
    pub peer: Option<SocketAddr>,
    /// What identifies the request in the log.
    pub request_id: Option<&'a [u8]>,
    /// The client's connection, when the request asks for an upgrade.
    pub upgrade: Option<Upgrade>,
}

/// The connection of a client that asks for another protocol on it.
#[derive(Debug)]
pub struct Upgrade {
    pub(super) stream: abi::Stream,
    pub(super) protocol: Option<Box<str>>,
}

impl Upgrade {
    /// `stream` opens when a response that agrees has been sent: 101, or 2xx to a `CONNECT`.
    /// `protocol` is what an extended `CONNECT` asks for (RFC 8441).
    ///
    /// The request is in the app until the app has dropped the stream, which it does at once when
    /// it does not agree.
    pub fn new(
        in_flight: &InFlight,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: Option<&str>,
    ) -> Self {
        Self {
            stream: export_stream(stream, Counted(in_flight.second_handle())),
            protocol: protocol.map(Into::into),
        }
    }
}

/// [`Caught`] with an [`InFlight`]: the request counts as in flight until the guarded stream is dropped.
struct Counted(
    #[expect(
        dead_code,
        reason = "the request is in the app for as long as this is there"
    )]
    InFlight,
);

impl PanicBoundary for Counted {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        Caught.run(work)
    }
}
