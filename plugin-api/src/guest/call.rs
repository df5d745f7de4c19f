//! One call of the app: its future in the host's slot, polled until it gives a response.

use std::{
    future::Future,
    mem::{self, MaybeUninit},
    pin::Pin,
    ptr,
    task::{Context, Poll, Waker},
};

use http::Response;

use super::runtime::{Entered, catch};
#[cfg(feature = "upgrade")]
use super::upgrade::Offer;
use crate::{
    BoxError,
    abi::{self, CallContext, CallSlot, poll},
    crossing::{HeaderFields, export_polled, with_waker},
};

/// A call that is about to start.
pub struct Start<'a> {
    #[cfg(feature = "upgrade")]
    pub(crate) offer: Option<Offer>,
    pub(crate) slot: &'a mut CallSlot,
    pub(crate) context: &'a CallContext,
    pub(crate) runtime: &'a Entered,
}

impl Start<'_> {
    /// Puts `future` into the slot and polls it once. What it holds and returns is as
    /// [`abi::Plugin::call`] says.
    ///
    /// Runs under the guard that [`Entered::run`](crate::crossing::Guard::run) is.
    #[cfg_attr(
        not(feature = "upgrade"),
        expect(unused_mut, reason = "no offer is taken")
    )]
    pub(crate) fn run<F, B>(mut self, future: F) -> u32
    where
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        #[cfg(feature = "upgrade")]
        if let Some(offer) = self.offer.take() {
            return self.start(Box::pin(offer.answered(future)));
        }
        self.start(future)
    }

    fn start<F, B>(self, future: F) -> u32
    where
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let Self {
            slot,
            context,
            runtime,
            ..
        } = self;
        if fits::<F>() {
            Filled::put(slot, runtime, future);
        } else {
            Filled::put(slot, runtime, Box::pin(future));
        }
        // SAFETY: filled just now, by this thread.
        unsafe { Filled::poll(slot, context) }
    }
}

/// What a slot holds between the polls of a call.
#[repr(C, align(16))]
struct Filled {
    future: [MaybeUninit<u8>; ROOM],
    operations: &'static Operations,
    runtime: Entered,
}

/// What is left of a slot for a future, in bytes.
const ROOM: usize = 480;

const fn fits<F>() -> bool {
    size_of::<F>() <= ROOM && align_of::<F>() <= 16
}

/// What can be done with the future in a slot, whose type only these know.
struct Operations {
    poll: unsafe fn(*mut u8, &mut Context<'_>, &CallContext, &Entered) -> u32,
    drop: unsafe fn(*mut u8),
}

impl Filled {
    fn put<F, B>(slot: &mut CallSlot, runtime: &Entered, future: F)
    where
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        const { assert!(size_of::<Self>() <= size_of::<CallSlot>()) };
        const { assert!(align_of::<Self>() <= align_of::<CallSlot>()) };
        const { assert!(mem::offset_of!(Self, future) == 0) };
        assert!(fits::<F>(), "the caller boxes what does not fit");

        let operations = Typed::<F>::OPERATIONS;
        let empty = [MaybeUninit::uninit(); ROOM];
        let filled = (&raw mut slot.bytes).cast::<Self>();
        // SAFETY: the slot has the room and the alignment, by the assertions, and holds nothing
        // before a call.
        unsafe {
            filled.write(Self {
                operations,
                runtime: runtime.clone(),
                future: empty,
            })
        };
        // SAFETY: written just now.
        let place = unsafe { &mut (*filled).future };
        // SAFETY: there is room for the future, by the check above.
        unsafe { place.as_mut_ptr().cast::<F>().write(future) };
    }

    /// # Safety
    ///
    /// `slot` is filled.
    unsafe fn of(slot: &mut CallSlot) -> &mut Self {
        // SAFETY: the caller says so.
        unsafe { &mut *(&raw mut slot.bytes).cast::<Self>() }
    }

    /// Polls the call in `slot`, and empties the slot unless it is still pending.
    ///
    /// # Safety
    ///
    /// The slot is filled, and has not moved since.
    unsafe fn poll(slot: &mut CallSlot, call: &CallContext) -> u32 {
        // SAFETY: the caller says so.
        let Self {
            operations,
            runtime,
            future,
        } = unsafe { Self::of(slot) };
        let future = future.as_mut_ptr().cast();
        let poll_with = |waker: &Waker| {
            let mut context = Context::from_waker(waker);
            // SAFETY: `operations` were stored for the future that is there.
            unsafe { (operations.poll)(future, &mut context, call, runtime) }
        };
        // SAFETY: the waker is lent until this returns.
        let polled = catch(|| unsafe { with_waker(call.waker, poll_with) });
        if polled == Some(poll::PENDING) {
            return poll::PENDING;
        }
        // SAFETY: the slot is filled, and nobody looks at it after this.
        let emptied = catch(|| unsafe { Self::empty(slot) });
        emptied.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Drops what is in `slot`.
    ///
    /// # Safety
    ///
    /// The slot is filled; it is not any more then.
    unsafe fn empty(slot: &mut CallSlot) {
        // SAFETY: the caller says so.
        let Self {
            operations,
            runtime,
            future,
        } = unsafe { Self::of(slot) };
        // SAFETY: it is taken out once.
        let _runtime = unsafe { ptr::read(runtime) };
        // SAFETY: `operations` were stored for the future that is there, and it is dropped once.
        unsafe { (operations.drop)(future.as_mut_ptr().cast()) };
    }
}

/// Polls a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn poll_pending(slot: &mut CallSlot, context: &CallContext) -> u32 {
    // SAFETY: the caller says so.
    let runtime = unsafe { Filled::of(slot) }.runtime.clone();
    let _entered = runtime.enter();
    // SAFETY: the caller says so.
    unsafe { Filled::poll(slot, context) }
}

/// Drops a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn cancel(slot: &mut CallSlot) {
    // SAFETY: the caller says so.
    let runtime = unsafe { Filled::of(slot) }.runtime.clone();
    let _entered = runtime.enter();
    // SAFETY: the caller says so. What a panic leaves undone has been reported.
    let _ = catch(|| unsafe { Filled::empty(slot) });
}

struct Typed<F>(F);

impl<F, B> Typed<F>
where
    F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
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
            Poll::Ready(Ok(response)) => {
                respond(response, context, call, runtime);
                poll::READY
            }
            Poll::Ready(Err(error)) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "The app returned an error"
                );
                poll::FAILED
            }
        }
    }

    unsafe fn drop(future: *mut u8) {
        // SAFETY: an `F` is there, and nobody looks at it after this.
        unsafe { future.cast::<F>().drop_in_place() };
    }
}

fn respond<B>(
    response: Response<B>,
    context: &mut Context<'_>,
    call: &CallContext,
    runtime: &Entered,
) where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (head, body) = response.into_parts();
    let mut body = export_polled(body, runtime, context);
    let fields = HeaderFields::new(&head.headers);
    let response = abi::Response {
        size: size_of::<abi::Response>(),
        headers: fields.as_abi(),
        body: &raw mut body,
        status: head.status.as_u16(),
        flags: 0,
    };
    // SAFETY: function and sink are the host's, and everything is borrowed for the call.
    unsafe { (call.respond)(call.sink, &raw const response) };
}
