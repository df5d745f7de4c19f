//! The facts about a request that its head and body do not contain: client, mount, request ID, and upgrade.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{InFlight, boundary::HostBoundary, stream::export_stream};
use crate::{abi, crossing::PanicBoundary};

/// The parameters of a call that do not come from the request's head and body.
#[derive(Debug)]
pub struct CallInfo<'a> {
    /// The mount of the app: a prefix of the request's path that ends at a segment boundary.
    pub mount: &'a str,
    /// The address of the client, or of the proxy before the server.
    pub peer: Option<SocketAddr>,
    /// The ID of the request in the log.
    pub request_id: Option<&'a [u8]>,
    /// The client's connection, if the request asks for an upgrade.
    pub upgrade: Option<Upgrade>,
}

/// The connection of a client whose request asks for an upgrade to another protocol.
#[derive(Debug)]
pub struct Upgrade {
    pub(super) stream: abi::Stream,
    /// The `:protocol` of an extended `CONNECT` (RFC 8441); otherwise `None`.
    pub(super) protocol: Option<Box<str>>,
}

impl Upgrade {
    /// Converts the client's connection to an ABI stream.
    ///
    /// Operations on `stream` are pending until a response that accepts the upgrade has been sent: 101, or 2xx to a
    /// `CONNECT`. `protocol` is the `:protocol` of an extended `CONNECT` (RFC 8441).
    ///
    /// The request stays in flight until the app drops the stream. An app that does not accept the upgrade drops the
    /// stream at once.
    pub fn new(
        in_flight: &InFlight,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: Option<&str>,
    ) -> Self {
        Self {
            stream: export_stream(stream, UpgradeBoundary(in_flight.second_handle())),
            protocol: protocol.map(Into::into),
        }
    }
}

/// A [`HostBoundary`] that owns a handle of the request. The exported stream owns the boundary, so the request stays in
/// flight until the stream is dropped.
struct UpgradeBoundary(
    #[expect(dead_code, reason = "the drop of the handle ends the request")] InFlight,
);

impl PanicBoundary for UpgradeBoundary {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        HostBoundary.run(work)
    }
}
