//! A request in an app: it crosses, and becomes the response or a call that has to wait for it.

use std::{
    cell::RefCell,
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
    abi::{self, CallContext, CallSlot, OwnedBytes, poll},
    crossing::{Guard, HeaderFields, Imported, Lent, PollWaker, add_fields, export},
};

/// What the app is told of a request beside the request.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where the app is mounted: a prefix of the request's path, on a segment's boundary.
    pub mount: &'a str,
    /// Who sent the request.
    pub peer: Option<SocketAddr>,
    /// What identifies the request in the log.
    pub request_id: Option<&'a [u8]>,
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
    /// Some until the app is called.
    body: Option<B>,
    /// Borrows from the headers of `head`, which stay as they are until the app is called.
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
            body: Some(body),
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

    /// The body of the request, until the app is called.
    #[must_use]
    pub fn body(&self) -> Option<&B> {
        self.body.as_ref()
    }

    /// The first value of a header field whose name is not one of those that the `http` crate has a
    /// constant for. In lower case; quicker than asking the headers.
    #[must_use]
    pub fn unusual_field(&self, name: &str) -> Option<&[u8]> {
        // After the call the headers are gone.
        self.body.as_ref()?;
        // SAFETY: the fields borrow from the headers, which are there and unchanged.
        unsafe { self.fields.find_unnumbered(name) }
    }

    /// Calls the app, which has the request until its response's body is dropped. Head and body go
    /// with it: what is left here is empty.
    pub fn call(
        &mut self,
        in_flight: InFlight,
        target: Target<'_>,
        context: &mut Context<'_>,
    ) -> Called
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let body = self.body.take();
        let mut body = body.map_or_else(abi::Body::empty, |body| export(body, Caught));
        let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        let lent = Lent {
            mount: target.mount,
            peer: target.peer,
            request_id: target.request_id,
            headers: self.fields.as_abi(),
            body: &raw mut body,
            upgrade: &raw mut upgrade,
            protocol: protocol.as_deref(),
        };
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        // The headers are borrowed until the response comes, and then are the room for its own.
        let mut sink = Sink::new(mem::take(&mut self.head.headers));
        let App { plugin, app, .. } = in_flight.app();
        let polled = lent.with(&self.head, |request| {
            waker.lend(context.waker(), |waker| {
                let context = sink.context(waker);
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
        let mut sink = Sink::new(HeaderMap::new());
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
struct Sink {
    /// Those of the request, or none; then those of the response.
    headers: HeaderMap,
    /// Some when the plugin has given a response.
    response: Option<Result<(StatusCode, Imported), CallError>>,
}

impl Sink {
    fn new(headers: HeaderMap) -> Self {
        Self {
            headers,
            response: None,
        }
    }

    fn context(&mut self, waker: *const abi::Waker) -> CallContext {
        CallContext {
            size: size_of::<CallContext>(),
            waker,
            sink: ptr::from_mut(self).cast(),
            respond,
        }
    }

    /// What a poll that was not pending came to.
    fn answer(self, polled: u32, in_flight: InFlight) -> Result<Response<Body>, CallError> {
        match (polled, self.response) {
            (poll::READY, Some(Ok((status, body)))) => {
                let mut response = Response::new(Body(body, in_flight));
                *response.status_mut() = status;
                *response.headers_mut() = self.headers;
                Ok(response)
            }
            (poll::READY, _) => Err(CallError::Invalid),
            (poll::FAILED, _) => Err(CallError::Failed),
            _ => Err(CallError::Panicked),
        }
    }
}

unsafe extern "C" fn respond(sink: *mut c_void, response: *const abi::Response) {
    // SAFETY: the plugin gives back the sink of this poll, once.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    // SAFETY: the plugin lends the response for the call.
    let response = unsafe { &*response };
    // SAFETY: as above.
    let body = unsafe { &mut *response.body };
    let body = Imported::new(body.take());
    let headers = &mut sink.headers;
    // SAFETY: as above.
    let status = Caught.run(|| unsafe { import(response, headers) });
    sink.response = status.map(|status| status.map(|status| (status, body)));
}

/// Puts the fields of the response into `headers`, and gives its status.
///
/// # Safety
///
/// What `response` borrows is valid until this returns.
unsafe fn import(
    response: &abi::Response,
    headers: &mut HeaderMap,
) -> Result<StatusCode, CallError> {
    headers.clear();
    // SAFETY: the caller says so.
    unsafe { add_fields(headers, response.headers) }.map_err(|_| CallError::Invalid)?;
    StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)
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
