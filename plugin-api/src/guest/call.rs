//! One call of the app: its future in the host's slot, polled until it gives a response.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::{Response, StatusCode, header::CONTENT_LENGTH, response};

#[cfg(feature = "local")]
use super::local;
use super::{
    runtime::Entered,
    slot::{Filled, Operations, fits},
};
use crate::{
    BoxError,
    abi::{self, CallContext, CallSlot, poll},
    crossing::{Guard, HeaderFields, catch, export_polled, keep_room, with_waker},
};

/// A call that is about to start.
pub struct Start<'a> {
    /// The plugin's until the call returns, and empty.
    pub(crate) slot: *mut CallSlot,
    pub(crate) context: &'a CallContext,
    pub(crate) runtime: &'a Entered,
}

/// What a call may come to.
pub trait Respond: Sized {
    /// Gives it to the host. What it holds and returns is as [`abi::Plugin::call`] says.
    #[doc(hidden)]
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &Entered) -> u32;

    /// The same in this process.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn into_local(self) -> Result<local::Response, BoxError>;
}

impl Start<'_> {
    /// Puts the future that `make` gives into the slot and polls it once. What the slot holds and this
    /// returns is as [`abi::Plugin::call`] says. None of the author's code may run after this: a panic
    /// of it would end a call whose future is in the slot.
    ///
    /// Runs under the guard that [`Entered::run`](crate::crossing::Guard::run) is.
    pub(crate) fn run<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        if fits::<F>() {
            self.start(make)
        } else {
            self.start(|| Box::pin(make()))
        }
    }

    fn start<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        // SAFETY: the slot is there for this call, and holds nothing before.
        let place = unsafe { Filled::put(self.slot, make) };
        let poll = |context: &mut Context<'_>| {
            // SAFETY: the future was put there just now.
            unsafe { Typed::<F>::poll(place, context, self.context, self.runtime) }
        };
        let polled = catch(|| self.with_context(poll));
        if polled == Some(poll::PENDING) {
            // SAFETY: the slot is there for this call.
            unsafe { Filled::complete(self.slot, Typed::<F>::OPERATIONS, self.runtime) };
            return poll::PENDING;
        }
        // SAFETY: the future is there, and nobody looks at it after this.
        let dropped = catch(|| unsafe { Typed::<F>::drop(place) });
        dropped.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Lends the waker of the call, for what is polled before there is a future.
    pub(crate) fn with_context<R>(&self, work: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let work = |waker: &Waker| work(&mut Context::from_waker(waker));
        // SAFETY: the host lends the waker for the call, which lasts longer than `self`.
        unsafe { with_waker(self.context.waker, work) }
    }
}

/// Does a step of a call in the app's runtime. A call that cannot go on is over, and its slot is empty:
/// as when the runtime cannot be left, because the author's code has leaked a guard of its own.
///
/// # Safety
///
/// `slot` is the plugin's for now, and holds a call when `step` says that one is pending.
pub(crate) unsafe fn step(
    runtime: &Entered,
    slot: *mut CallSlot,
    step: impl FnOnce() -> u32,
) -> u32 {
    let mut came_of_it = poll::PANICKED;
    let left = runtime.poll(|| came_of_it = step());
    if left.is_none() && came_of_it == poll::PENDING {
        // SAFETY: the caller says so.
        let _ = catch(|| unsafe { Filled::empty(slot) });
        return poll::PANICKED;
    }
    came_of_it
}

/// Polls a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn poll_pending(slot: *mut CallSlot, context: &CallContext) -> u32 {
    // SAFETY: the caller says so.
    let (_, runtime) = unsafe { Filled::of(slot) };
    let runtime = runtime.clone();
    // SAFETY: the caller says so.
    let poll = || unsafe { Filled::poll(slot, context) };
    // SAFETY: the slot is filled for as long as it is pending.
    unsafe { step(&runtime, slot, poll) }
}

/// Drops a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn cancel(slot: *mut CallSlot) {
    // SAFETY: the caller says so.
    let (_, runtime) = unsafe { Filled::of(slot) };
    let runtime = runtime.clone();
    // SAFETY: the caller says so. What a panic leaves undone has been reported.
    let _ = runtime.run(|| unsafe { Filled::empty(slot) });
}

struct Typed<F>(F);

impl<F> Typed<F>
where
    F: Future<Output: Respond> + Send + 'static,
{
    const OPERATIONS: &'static Operations = &Operations {
        poll: Self::poll,
        drop: Self::drop,
    };

    unsafe fn poll(
        future: *mut u8,
        context: &mut Context<'_>,
        call: &CallContext,
        runtime: &Entered,
    ) -> u32 {
        // SAFETY: an `F` is there.
        let future = unsafe { &mut *future.cast::<F>() };
        // SAFETY: it stays in its place until it is dropped.
        let future = unsafe { Pin::new_unchecked(future) };
        match future.poll(context) {
            Poll::Pending => poll::PENDING,
            Poll::Ready(response) => response.respond(context, call, runtime),
        }
    }

    unsafe fn drop(future: *mut u8) {
        // SAFETY: an `F` is there, and nobody looks at it after this.
        unsafe { future.cast::<F>().drop_in_place() };
    }
}

impl<B, E> Respond for Result<Response<B>, E>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &Entered) -> u32 {
        let response = match self {
            Ok(response) => response,
            Err(error) => return failed(error),
        };
        let (head, body) = response.into_parts();
        let mut body = export_polled(body, runtime, context);
        #[cfg(feature = "axum")]
        if head.status == StatusCode::INTERNAL_SERVER_ERROR {
            super::extractors::look_at(&body);
        }
        let fields = fields_of(&head, &body);
        give(call, head.status, &fields, &mut body);
        keep_room(head.headers);
        poll::READY
    }

    #[cfg(feature = "local")]
    fn into_local(self) -> Result<local::Response, BoxError> {
        self.map(local::boxed).map_err(Into::into)
    }
}

/// The fields of a response as they cross. How long a body is that is all there, the host says, behind
/// all other fields, as axum does; it leaves that to the app where there is no body (RFC 9110, sections
/// 8.6 and 15.4.5).
fn fields_of(head: &response::Parts, body: &abi::Body) -> HeaderFields {
    let may_have_body = !matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let last = head.headers.len();
    let fields = head.headers.iter().zip(1..);
    let crossing = fields.filter_map(|(field @ (name, value), at)| {
        let is_said = at == last
            && may_have_body
            && *name == CONTENT_LENGTH
            && body.is_as_long_as(value.as_bytes());
        (!is_said).then_some(field)
    });
    HeaderFields::new(crossing)
}

/// Gives the host a response.
pub(crate) fn give(
    call: &CallContext,
    status: StatusCode,
    fields: &HeaderFields,
    body: &mut abi::Body,
) {
    let response = abi::Response {
        size: size_of::<abi::Response>(),
        headers: fields.as_abi(),
        body,
        status: status.as_u16(),
        flags: 0,
    };
    // SAFETY: function and sink are the host's, and everything is borrowed for the call.
    unsafe { (call.respond)(call.sink, &raw const response) };
}

/// The app has no response, but an error.
pub(crate) fn failed(error: impl Into<BoxError>) -> u32 {
    tracing::error!(
        error = &*error.into() as &dyn std::error::Error,
        "The app returned an error"
    );
    poll::FAILED
}
