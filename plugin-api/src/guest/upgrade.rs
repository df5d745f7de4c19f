//! Makes `hyper::upgrade::on`, and libraries that use it, work in an app whose connections belong to the host.
//!
//! hyper can create an [`OnUpgrade`] only inside a hyper connection. Therefore the plugin runs an inner hyper
//! connection for each request that asks for an upgrade. The inner connection uses an [`InnerSocket`]:
//!
//! 1. The inner connection reads a fixed request from the socket. The `OnUpgrade` of this request is inserted into the
//!    client's request, which crosses the ABI like any other request.
//! 2. The app's response accepts the upgrade. The response crosses the ABI too, and the inner connection writes a 101
//!    response of its own, which the socket discards.
//! 3. hyper releases the socket to the app. From now on the socket transfers the client's bytes.

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

/// The upgrade of a request that the app has not yet answered.
pub(crate) struct PendingUpgrade {
    /// Whether the method of the client's request is `CONNECT`. Decides which status accepts the upgrade.
    is_connect: bool,
    /// Notified when the app has accepted the upgrade.
    accepted: Arc<Notify>,
    /// The inner connection. Has read its request, and waits for `accepted`.
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl PendingUpgrade {
    /// Starts the inner connection, and inserts its `OnUpgrade` into the extensions of `request`. If `protocol`, the
    /// `:protocol` of an extended `CONNECT`, is present, also inserts hyper's `Protocol`.
    ///
    /// Returns `None` if the inner connection fails. `request` then has no `OnUpgrade`.
    pub(crate) fn new<B>(
        stream: abi::Stream,
        protocol: Option<&str>,
        request: &mut Request<B>,
    ) -> Option<Self> {
        if let Some(protocol) = protocol {
            insert_protocol(request, protocol);
        }
        let accepted = Arc::new(Notify::new());
        let (sender, receiver) = mpsc::channel();
        let mut connection = Box::pin(serve_inner(stream, Arc::clone(&accepted), sender));
        // One poll is enough: the socket has the whole request ready, so this poll calls the service, which sends the
        // `OnUpgrade` and waits for `accepted`. The waker does nothing, because `tokio::spawn` polls the connection
        // again with the waker of a task.
        let mut context = Context::from_waker(Waker::noop());
        if connection.as_mut().poll(&mut context).is_ready() {
            return None;
        }
        request.extensions_mut().insert(receiver.try_recv().ok()?);
        Some(Self {
            is_connect: *request.method() == Method::CONNECT,
            accepted,
            connection,
        })
    }

    /// Waits for the app's response, and returns the response. If the response accepts the upgrade, lets the inner
    /// connection release its socket to the app's `OnUpgrade`. Otherwise drops the inner connection, and the
    /// `OnUpgrade` returns an error.
    pub(crate) async fn await_response<B>(
        self,
        response: impl Future<Output = Result<Response<B>, BoxError>>,
    ) -> Result<Response<B>, BoxError> {
        let response = response.await?;
        // A `CONNECT` is accepted by any 2xx (RFC 9110, section 9.3.6), also an extended one (RFC 8441). An upgrade of
        // HTTP/1 is accepted by 101.
        let accepts = if self.is_connect {
            response.status().is_success()
        } else {
            response.status() == StatusCode::SWITCHING_PROTOCOLS
        };
        if accepts {
            // `notify_one` stores a permit, so the notification is not lost if the inner connection waits only later.
            self.accepted.notify_one();
            // A task of its own, because the inner connection must write its response and release the socket after this
            // future has ended.
            tokio::spawn(self.connection);
        }
        Ok(response)
    }
}

/// Inserts `hyper::ext::Protocol` into the extensions of `request`, if this build of hyper has that type.
///
/// hyper has the type only with its feature `http2`. This crate does not enable the feature, because it would add the
/// crate `h2` and the dependencies of `h2` to every plugin. An app that reads the type enables `http2` itself, for
/// example through axum's `http2`.
///
/// Code cannot test whether a feature of another crate is enabled, but name resolution can: inside this function, the
/// glob import has precedence over the [`Protocol`] of this module, so `Protocol` is hyper's type if hyper has that
/// type.
fn insert_protocol<B>(request: &mut Request<B>, protocol: &str) {
    #[allow(unused_imports, reason = "hyper may have no such type")]
    use hyper::ext::*;

    request.extensions_mut().insert(Protocol::from(protocol));
}

/// Replaces `hyper::ext::Protocol` if hyper is built without that type. Apps cannot name this type.
#[derive(Clone)]
#[allow(dead_code, reason = "hyper may have a type of this name")]
struct Protocol;

impl Protocol {
    #[allow(dead_code, reason = "hyper may have a type of this name")]
    fn from(_: &str) -> Self {
        Self
    }
}

/// Runs the inner connection: sends the `OnUpgrade` of its request to `sender`, and answers the request with 101 after
/// `accepted` is notified.
async fn serve_inner(
    stream: abi::Stream,
    accepted: Arc<Notify>,
    sender: Sender<OnUpgrade>,
) -> hyper::Result<()> {
    let service = service_fn(|mut request: Request<Incoming>| {
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        // Cannot fail: `PendingUpgrade::new` keeps the receiver until after the first poll, which runs this code.
        let _ = on_upgrade.map(|on_upgrade| sender.send(on_upgrade));
        let accepted = Arc::clone(&accepted);
        async move {
            accepted.notified().await;
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        // Disabled, because the builder has no timer, and the request is complete at the first read.
        .header_read_timeout(None)
        .serve_connection(InnerSocket::new(stream), service)
        .with_upgrades()
        .await
}

/// The socket of the inner connection. Reads return [`INNER_REQUEST`] first, and writes discard the response. After the
/// response, reads and writes go to the client's connection.
struct InnerSocket {
    /// The client's connection.
    stream: Stream,
    /// The part of [`INNER_REQUEST`] that was not read yet.
    unread_request: &'static [u8],
    /// Whether hyper has written the whole response.
    is_response_written: bool,
}

/// The request of the inner connection. hyper creates an `OnUpgrade` for it because it has the fields of an upgrade.
/// Nothing reads the protocol's name.
const INNER_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n";

impl InnerSocket {
    fn new(stream: abi::Stream) -> Self {
        Self {
            stream: Stream::new(stream),
            unread_request: INNER_REQUEST,
            is_response_written: false,
        }
    }
}

impl rt::Read for InnerSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread_request.is_empty() {
            let len = self.unread_request.len().min(buffer.remaining());
            let (part, rest) = self.unread_request.split_at(len);
            buffer.put_slice(part);
            self.unread_request = rest;
            return Poll::Ready(Ok(()));
        }
        if !self.is_response_written {
            // Before the response, nothing can be read. The waker is not stored, because hyper reads again after it has
            // written the response.
            return Poll::Pending;
        }
        // SAFETY: the code below only writes bytes into the buffer, and never makes initialized bytes uninitialized.
        let unfilled = unsafe { buffer.as_mut() };
        let (start, len) = (unfilled.as_mut_ptr().cast(), unfilled.len());
        // SAFETY: `start` points to `len` writable bytes of the buffer.
        match unsafe { self.stream.poll_read(context, start, len) } {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(count)) => {
                // SAFETY: `poll_read` has initialized the first `count` bytes, and `count` is at most `len`.
                unsafe { buffer.advance(count) };
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl rt::Write for InnerSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_response_written {
            return self.stream.poll_write(context, bytes);
        }
        // The response ends with the empty line after its head, because a 101 has no body. hyper writes the head in one
        // piece.
        self.is_response_written = bytes.ends_with(b"\r\n\r\n");
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_response_written {
            self.stream.poll_flush(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_response_written {
            self.stream.poll_shutdown(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}
