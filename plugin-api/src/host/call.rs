//! A request in an app: it crosses, and becomes the response or a call that has to wait for it.

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    mem,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    ptr,
    task::{Context, Poll},
};

use http::{Extensions, HeaderMap, Response, StatusCode, request};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{App, InFlight, stream::export_stream};
use crate::{
    BodyError, BoxError,
    abi::{self, CallContext, CallSlot, OwnedBytes, Slice, poll},
    crossing::{
        Guard, HeaderFields, Imported, Place, PollWaker, add_fields, export, lend,
    },
};

/// What the app is told of a request beside the request.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where the app is mounted: a prefix of the request's path, on a segment's boundary.
    pub mount: &'a str,
    /// Who sent the request.
    pub peer: Option<SocketAddr>,
    /// What identifies the request in the log.
    pub request_id: Option<&'a str>,
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

/// A request whose header fields have the form in which they cross.
#[derive(Debug)]
pub struct Prepared<B> {
    head: request::Parts,
    body: B,
    /// Borrows from the headers of `head`, which stay as they are.
    fields: HeaderFields,
}

/// What came of a request when the app was called.
#[derive(Debug)]
pub enum Called {
    /// It was answered at once, as most are.
    Answered(Result<Response<Body>, CallError>),
    /// The app has to wait for something. It was polled, so its waker is known to it.
    Pending(Call),
}

impl<B> Prepared<B> {
    /// Looks at the header fields of a request.
    pub fn new(head: request::Parts, body: B) -> Self {
        let mut prepared = Self {
            head,
            body,
            fields: HeaderFields::default(),
        };
        prepared.fields.add(&prepared.head.headers);
        prepared
    }

    /// The head of the request.
    #[must_use]
    pub fn head(&self) -> &request::Parts {
        &self.head
    }

    /// What else is known of the request.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }

    /// The body of the request.
    #[must_use]
    pub fn body(&self) -> &B {
        &self.body
    }

    /// The first value of a header field whose name is not one of those that the `http` crate has a
    /// constant for. In lower case; quicker than asking the headers.
    #[must_use]
    pub fn unusual_field(&self, name: &str) -> Option<&[u8]> {
        // SAFETY: the fields borrow from the headers, which are there and unchanged.
        unsafe { self.fields.find_unnumbered(name) }
    }

    /// Calls the app, which has the request until its response's body is dropped.
    pub fn call(self, in_flight: InFlight, target: Target<'_>, context: &mut Context<'_>) -> Called
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        let sink = Sink::default();
        let App { plugin, app, .. } = in_flight.app();
        let polled = waker.lend(context.waker(), |waker| {
            let context = sink.context(waker);
            self.lend(target, |request, headers| {
                sink.headers.set(headers);
                // SAFETY: an app is not dropped with a request in it; the rest is borrowed for the
                // call.
                unsafe { (plugin.call)(*app, request, slot.as_mut(), &raw const context) }
            })
        });
        if polled != poll::PENDING {
            return Called::Answered(sink.answer(polled, in_flight));
        }
        Called::Pending(Call {
            in_flight: Some(in_flight),
            waker,
            slot,
        })
    }

    /// Lends the request as it crosses. Its headers go along: they must stay until the response
    /// comes.
    fn lend(
        self,
        target: Target<'_>,
        call: impl FnOnce(*const abi::Request, HeaderMap) -> u32,
    ) -> u32
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let Self {
            mut head,
            body,
            fields,
        } = self;
        let mut body = export(body, Caught);
        let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        let headers = mem::take(&mut head.headers);
        let place = Place {
            mount: target.mount,
            peer: target.peer,
            request_id: target.request_id,
        };
        lend(&head, fields.as_abi(), place, |request| {
            let request = abi::Request {
                body: &raw mut body,
                upgrade: &raw mut upgrade,
                protocol: Slice::from_option(protocol.as_deref()),
                ..request
            };
            call(&raw const request, headers)
        })
    }
}

/// The future of a response that the app has to wait for.
///
/// Dropping it cancels the request: the app's future is dropped in the app's runtime. The request
/// counts as being in the app until the response's body is dropped.
#[must_use = "a call does nothing unless polled"]
#[derive(Debug)]
pub struct Call {
    /// Some until it is ready.
    in_flight: Option<InFlight>,
    waker: PollWaker,
    slot: Slot,
}

impl Future for Call {
    type Output = Result<Response<Body>, CallError>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            in_flight,
            waker,
            slot,
        } = &mut *self;
        let Some(app) = in_flight else {
            panic!("a call was polled after it was ready");
        };
        let plugin = app.app().plugin;
        let sink = Sink::default();
        let polled = waker.lend(context.waker(), |waker| {
            let context = sink.context(waker);
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (plugin.poll)(slot.as_mut(), &raw const context) }
        });
        if polled == poll::PENDING {
            return Poll::Pending;
        }
        let Some(in_flight) = in_flight.take() else {
            unreachable!("it was there");
        };
        Poll::Ready(sink.answer(polled, in_flight))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (in_flight.app().plugin.cancel)(self.slot.as_mut()) };
        }
    }
}

/// Room for a call's future, that stays where it is.
#[derive(Debug)]
struct Slot(Option<Box<CallSlot>>);

impl Slot {
    /// One that this thread has left over, or a new one.
    fn take() -> Self {
        let slot = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Self(Some(slot.ok().flatten().unwrap_or_default()))
    }

    fn as_mut(&mut self) -> *mut CallSlot {
        self.0.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // It is empty again. While the thread ends there is nobody to leave it to.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.extend(self.0.take());
            }
        });
    }
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a slot stays where it is")]
    static SPARE: RefCell<Vec<Box<CallSlot>>> = const { RefCell::new(Vec::new()) };
}

/// How many slots a thread keeps for later.
const SPARES: usize = 64;

/// Where the plugin's response comes to.
#[derive(Default)]
struct Sink {
    response: Cell<Option<Result<Response<Imported>, CallError>>>,
    /// The request's headers, which are borrowed until the response comes: then their room is that
    /// of the response's.
    headers: Cell<HeaderMap>,
}

impl Sink {
    fn context(&self, waker: *const abi::Waker) -> CallContext {
        CallContext {
            size: size_of::<CallContext>(),
            waker,
            sink: ptr::from_ref(self).cast_mut().cast(),
            respond,
        }
    }

    /// What a poll that was not pending came to.
    fn answer(self, polled: u32, in_flight: InFlight) -> Result<Response<Body>, CallError> {
        match polled {
            poll::READY => match self.response.into_inner() {
                Some(Ok(response)) => Ok(response.map(|body| Body(body, in_flight))),
                _ => Err(CallError::Invalid),
            },
            poll::FAILED => Err(CallError::Failed),
            _ => Err(CallError::Panicked),
        }
    }
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
    let response = Caught.run(|| unsafe { import(response, headers, body) });
    sink.response.set(response);
}

/// # Safety
///
/// What `response` borrows is valid until this returns.
unsafe fn import(
    response: &abi::Response,
    mut headers: HeaderMap,
    body: Imported,
) -> Result<Response<Imported>, CallError> {
    headers.clear();
    // SAFETY: the caller says so.
    unsafe { add_fields(&mut headers, response.headers) }.map_err(|_| CallError::Invalid)?;
    let mut imported = Response::new(body);
    *imported.status_mut() =
        StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)?;
    *imported.headers_mut() = headers;
    Ok(imported)
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

impl Body {
    /// Whether its bytes come one after the other, and may have to be waited for.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Imported::Stream(_))
    }
}

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
