//! A request in an app: the future that makes its response.

use std::{
    cell::Cell,
    ffi::c_void,
    marker::PhantomPinned,
    mem,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    ptr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, request};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{App, InFlight, stream::export_stream};
use crate::{
    BodyError, BoxError,
    abi::{self, CallContext, CallSlot, OwnedBytes, Slice, poll},
    crossing::{Guard, HeaderFields, Imported, PollWaker, add_fields, export},
};

/// What the app is told of a request beside the request.
#[derive(Debug)]
pub struct Target {
    /// Where the app is mounted: a prefix of the request's path, on a segment's boundary.
    pub mount: Arc<str>,
    /// Who sent the request.
    pub peer: Option<SocketAddr>,
    /// What identifies the request in the log.
    pub request_id: Option<HeaderValue>,
    /// The client's connection, when the request asks for an upgrade.
    pub upgrade: Option<Upgrade>,
}

/// The connection of a client that asks for another protocol on it.
#[derive(Debug)]
pub struct Upgrade {
    stream: abi::Stream,
    protocol: Option<Box<str>>,
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
            stream: export_stream(stream, Counted(in_flight.again())),
            protocol: protocol.map(Into::into),
        }
    }
}

/// [`Caught`], for as long as the app has what it guards.
struct Counted(
    #[expect(
        dead_code,
        reason = "the request is in the app for as long as this is there"
    )]
    InFlight,
);

impl Guard for Counted {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        Caught.run(work)
    }
}

/// The future of a response.
///
/// Dropping it cancels the request: the app's future is dropped in the app's runtime. The request
/// counts as being in the app until the response's body is dropped.
#[must_use = "a call does nothing unless polled"]
#[derive(Debug)]
pub struct Call<B> {
    state: State<B>,
    waker: PollWaker,
    slot: CallSlot,
    _pinned: PhantomPinned,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives where it is polled: a box would be an allocation a request"
)]
enum State<B> {
    New(InFlight, Request<B>, Target),
    Pending(InFlight),
    Done,
}

impl<B> Call<B> {
    /// A call that starts when it is first polled.
    pub fn new(in_flight: InFlight, request: Request<B>, target: Target) -> Self {
        Self {
            state: State::New(in_flight, request, target),
            waker: PollWaker::default(),
            slot: CallSlot::new(),
            _pinned: PhantomPinned,
        }
    }
}

impl<B> Future for Call<B>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, CallError>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing here moves the slot, which is what is pinned.
        let Self {
            state, waker, slot, ..
        } = unsafe { self.get_unchecked_mut() };
        let slot = &raw mut *slot;
        let sink = Sink::default();
        let (in_flight, polled) = waker.lend(context.waker(), |waker| {
            let context = CallContext {
                size: size_of::<CallContext>(),
                waker,
                sink: ptr::from_ref(&sink).cast_mut().cast(),
                respond,
            };
            match mem::replace(state, State::Done) {
                State::New(in_flight, request, target) => {
                    let App { plugin, app, .. } = in_flight.app();
                    let polled = lend(request, target, |request, headers| {
                        sink.headers.set(headers);
                        // SAFETY: an app is not dropped with a request in it; the rest is borrowed
                        // for the call.
                        unsafe { (plugin.call)(*app, request, slot, &raw const context) }
                    });
                    (in_flight, polled)
                }
                State::Pending(in_flight) => {
                    let plugin = in_flight.app().plugin;
                    // SAFETY: the slot holds a pending call, and has not moved since.
                    let polled = unsafe { (plugin.poll)(slot, &raw const context) };
                    (in_flight, polled)
                }
                State::Done => panic!("a call was polled after it was ready"),
            }
        });
        Poll::Ready(match polled {
            poll::PENDING => {
                *state = State::Pending(in_flight);
                return Poll::Pending;
            }
            poll::READY => match sink.response.into_inner() {
                Some(Ok(response)) => Ok(response.map(|body| Body(body, in_flight))),
                _ => Err(CallError::Invalid),
            },
            poll::FAILED => Err(CallError::Failed),
            _ => Err(CallError::Panicked),
        })
    }
}

impl<B> Drop for Call<B> {
    fn drop(&mut self) {
        if let State::Pending(in_flight) = &self.state {
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (in_flight.app().plugin.cancel)(&raw mut self.slot) };
        }
    }
}

/// Lends the request as it crosses. Its headers go along: they must stay until the response comes.
fn lend<B>(
    request: Request<B>,
    target: Target,
    call: impl FnOnce(*const abi::Request, HeaderMap) -> u32,
) -> u32
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (mut head, body) = request.into_parts();
    let mut body = export(body, Caught);
    let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
        (upgrade.stream, upgrade.protocol)
    });
    let fields = HeaderFields::new(&head.headers);
    let original_path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let rooted;
    let path = match below(&target.mount, original_path) {
        path if path.is_empty() || path.starts_with(['/', '*']) => path,
        query => {
            rooted = format!("/{query}");
            &rooted
        }
    };
    let headers = mem::take(&mut head.headers);
    let request = abi::Request {
        size: size_of::<abi::Request>(),
        method: Slice::new(head.method.as_str().as_bytes()),
        scheme: Slice::from_option(head.uri.scheme_str()),
        authority: Slice::from_option(head.uri.authority().map(|authority| authority.as_str())),
        path: Slice::new(if path.is_empty() && has_path(&head) {
            b"/"
        } else {
            path.as_bytes()
        }),
        original_path: Slice::new(original_path.as_bytes()),
        mount: Slice::new(target.mount.as_bytes()),
        request_id: target
            .request_id
            .as_ref()
            .map_or(Slice::NONE, |id| Slice::new(id.as_bytes())),
        peer: target.peer.map(Into::into).unwrap_or_default(),
        headers: fields.as_abi(),
        body: &raw mut body,
        upgrade: &raw mut upgrade,
        protocol: Slice::from_option(protocol.as_deref()),
        version: version(head.version),
        flags: 0,
    };
    call(&raw const request, headers)
}

/// `path` without its prefix `mount`.
fn below<'a>(mount: &str, path: &'a str) -> &'a str {
    if mount == "/" {
        path
    } else {
        path.strip_prefix(mount).unwrap_or(path)
    }
}

/// Whether a request has a path: all but those to an authority, as `CONNECT` is.
fn has_path(head: &request::Parts) -> bool {
    head.uri.path_and_query().is_some()
}

fn version(version: Version) -> u32 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}

/// Where the plugin's response comes to.
#[derive(Default)]
struct Sink {
    response: Cell<Option<Result<Response<Imported>, CallError>>>,
    /// The request's headers, which are borrowed until the response comes: then their room is that
    /// of the response's.
    headers: Cell<HeaderMap>,
}

unsafe extern "C" fn respond(sink: *mut c_void, response: *const abi::Response) {
    // SAFETY: the plugin gives back the sink of this poll.
    let sink = unsafe { &*sink.cast::<Sink>() };
    // SAFETY: the plugin lends the response for the call.
    let response = unsafe { &*response };
    // SAFETY: as above.
    let body = unsafe { &mut *response.body };
    let body = Imported::new(body.take());
    let headers = sink.headers.take();
    // SAFETY: as above.
    let head = Caught.run(|| unsafe { head(response, headers) });
    sink.response
        .set(head.map(|head| head.map(|head| head.map(|()| body))));
}

/// # Safety
///
/// What `response` borrows is valid until this returns.
unsafe fn head(
    response: &abi::Response,
    mut headers: HeaderMap,
) -> Result<Response<()>, CallError> {
    headers.clear();
    // SAFETY: the caller says so.
    unsafe { add_fields(&mut headers, response.headers) }.map_err(|_| CallError::Invalid)?;
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)?;
    *head.headers_mut() = headers;
    Ok(head)
}

/// The body of a response: a [`http_body::Body`] of bytes that the plugin owns.
#[derive(Debug)]
pub struct Body(
    Imported,
    #[expect(
        dead_code,
        reason = "the request is in the app for as long as the body is there"
    )]
    InFlight,
);

impl http_body::Body for Body {
    type Data = OwnedBytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, BodyError>>> {
        self.0.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A request that the app gave no response to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The app's service returned an error, which is in the log.
    #[error("the app returned an error")]
    Failed,
    /// The app panicked, which is in the log.
    #[error("the app panicked")]
    Panicked,
    /// The response is not one that HTTP allows.
    #[error("the app's response is not one that HTTP allows")]
    Invalid,
}

/// How the host runs its own code when a plugin calls in: with an end to panics, which std reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught;

impl Guard for Caught {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        panic::catch_unwind(AssertUnwindSafe(work)).ok()
    }
}
