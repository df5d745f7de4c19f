//! Upgrades: `hyper::upgrade::on`, and all that builds on it, in an app whose connections are the
//! host's.
//!
//! hyper can create an `OnUpgrade` only inside a hyper connection. So for each request that asks for
//! an upgrade, the plugin runs a small hyper connection on a socket of its own. That connection reads a
//! fixed request, and the app gets the `OnUpgrade` of it. The real request and response cross like
//! any others. When the app agrees to the upgrade, the small connection writes a response, which is
//! discarded, and releases its socket. From then on the socket carries the client's bytes.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    task::{Context, Poll, Waker},
};

use http::{Method, Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    rt::{self, ReadBufCursor},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use tokio::sync::Notify;

use super::stream::Stream;
use crate::{BoxError, abi};

/// The connection of a request that asks for an upgrade, until the app has answered.
pub(crate) struct PendingUpgrade {
    is_connect: bool,
    agreed: Arc<Notify>,
    /// The small connection, which has read its request.
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl PendingUpgrade {
    /// Puts what upgrades need into the extensions of `request`. `protocol` is what an extended
    /// `CONNECT` asks for.
    pub(crate) fn new<B>(
        stream: abi::Stream,
        protocol: Option<&str>,
        request: &mut Request<B>,
    ) -> Option<Self> {
        if let Some(protocol) = protocol {
            insert_protocol(request, protocol);
        }
        let agreed = Arc::new(Notify::new());
        let (offer, offered) = mpsc::channel();
        let mut connection = Box::pin(connection(stream, Arc::clone(&agreed), offer));
        // The first poll reads the request of the small connection, which is all there, and then waits for `agreed`.
        let mut context = Context::from_waker(Waker::noop());
        if connection.as_mut().poll(&mut context).is_ready() {
            return None;
        }
        request.extensions_mut().insert(offered.try_recv().ok()?);
        Some(Self {
            is_connect: *request.method() == Method::CONNECT,
            agreed,
            connection,
        })
    }

    /// Awaits the app's response, and hands the connection over if the response agrees. Otherwise the connection is
    /// dropped, and the app's `OnUpgrade` gives an error.
    pub(crate) async fn answered<B>(
        self,
        response: impl Future<Output = Result<Response<B>, BoxError>>,
    ) -> Result<Response<B>, BoxError> {
        let response = response.await?;
        let agrees = if self.is_connect {
            response.status().is_success()
        } else {
            response.status() == StatusCode::SWITCHING_PROTOCOLS
        };
        if agrees {
            self.agreed.notify_one();
            tokio::spawn(self.connection);
        }
        Ok(response)
    }
}

/// Puts hyper's `Protocol` into the extensions of `request`, if this build of hyper has that type.
///
/// hyper has it with the feature `http2`, which an app that looks at the type must turn on (axum's `http2` does). An app
/// that does not is spared the crate `h2` and what that needs. A feature of another crate cannot be asked for, but a
/// name can: the glob import comes before the names outside of this function, and brings hyper's type if there is one.
fn insert_protocol<B>(request: &mut Request<B>, protocol: &str) {
    #[allow(unused_imports, reason = "hyper may have no such type")]
    use hyper::ext::*;

    request.extensions_mut().insert(Protocol::from(protocol));
}

/// Used instead of `hyper::ext::Protocol` when hyper is built without it. No app can see this type.
#[derive(Clone)]
#[allow(dead_code, reason = "hyper may have a type of this name")]
struct Protocol;

impl Protocol {
    #[allow(dead_code, reason = "hyper may have a type of this name")]
    fn from(_: &str) -> Self {
        Self
    }
}

async fn connection(
    stream: abi::Stream,
    agreed: Arc<Notify>,
    offer: Sender<OnUpgrade>,
) -> hyper::Result<()> {
    let service = service_fn(|mut request: Request<Incoming>| {
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        // `PendingUpgrade::new` receives it after the first poll.
        let _ = on_upgrade.map(|on_upgrade| offer.send(on_upgrade));
        let agreed = Arc::clone(&agreed);
        async move {
            agreed.notified().await;
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(Socket::new(stream), service)
        .with_upgrades()
        .await
}

/// The socket of the small connection. Reading gives a request first; writing drops the response; after that the
/// socket is the client's connection.
struct Socket {
    stream: Stream,
    /// The rest of the request.
    request: &'static [u8],
    /// Whether the response has been written.
    is_open: bool,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n";

impl Socket {
    fn new(stream: abi::Stream) -> Self {
        Self {
            stream: Stream::new(stream),
            request: REQUEST,
            is_open: false,
        }
    }
}

impl rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.request.is_empty() {
            let len = self.request.len().min(buffer.remaining());
            let (now, later) = self.request.split_at(len);
            buffer.put_slice(now);
            self.request = later;
            return Poll::Ready(Ok(()));
        }
        if !self.is_open {
            // There is nothing to read until the response is written. No waker is needed: hyper reads again after writing it.
            return Poll::Pending;
        }
        // SAFETY: nothing is taken out of the buffer, nor made uninitialized.
        let room = unsafe { buffer.as_mut() };
        let (place, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: there is room for `len` bytes.
        match unsafe { self.stream.poll_read(context, place, len) } {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(count)) => {
                // SAFETY: so many bytes were read, and no more than there was room for.
                unsafe { buffer.advance(count) };
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_open {
            return self.stream.poll_write(context, bytes);
        }
        // hyper writes a head whole, and a 101 has no body.
        self.is_open = bytes.ends_with(b"\r\n\r\n");
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_open {
            self.stream.poll_flush(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_open {
            self.stream.poll_shutdown(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}
