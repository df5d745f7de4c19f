//! A call of an app with one request: starts the call, and polls a call whose response is not ready at once.

use std::{
    mem,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, header::EXPECT, request};

use super::{
    App, Body, CallInfo, InFlight,
    boundary::HostBoundary,
    call_error::CallError,
    sink::{self, Sink},
    slot::Slot,
};
use crate::{
    BoxError,
    abi::{self, Headers, poll},
    crossing::{AbiRequestParts, PollWaker, export, export_unpin},
};

/// The result of [`InFlight::call`].
#[derive(Debug)]
pub enum CallResult {
    /// The call has ended at its first poll, like most calls.
    Answered(Result<Body, CallError>),
    /// The app waits for an event, and will wake the task when the call can be polled again.
    Pending(Call),
}

impl InFlight {
    /// Calls the app with a request, and polls the call once. The request stays in flight until the body of the
    /// response is dropped.
    ///
    /// Moves the header fields out of `head`. A `body` of `None` is an empty body. If the result is a response, its
    /// status and header fields are written to `response`.
    pub fn call<B, R>(
        self,
        head: &mut request::Parts,
        body: Option<B>,
        info: CallInfo<'_>,
        context: &mut Context<'_>,
        response: &mut Response<R>,
    ) -> CallResult
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let mut body = match body {
            Some(body) if body.is_end_stream() => abi::Body::empty(),
            // A small body is polled at once, because its bytes have usually arrived with the head. A body whose client
            // waits for `100 Continue` is not polled here, because the first poll makes hyper send `100 Continue`, and
            // the app decides whether it wants the body.
            Some(body) if is_small(&body) && !head.headers.contains_key(EXPECT) => {
                export_unpin(body, &HostBoundary, context)
            }
            Some(body) => export(body, HostBoundary),
            None => abi::Body::empty(),
        };
        let (mut upgrade, protocol) = info.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        // The app borrows the header fields from the sink's map until it passes the response. The same map then
        // receives the header fields of the response, so no second map is allocated.
        let mut sink = Sink::new(mem::take(&mut head.headers));
        let asks_for_headers = self.app().asks_for_headers;
        let headers = if asks_for_headers {
            Headers::NONE
        } else {
            sink.lay_out()
        };
        let sink_ptr = &raw mut sink;
        let parts = AbiRequestParts {
            mount: info.mount,
            peer: info.peer,
            request_id: info.request_id,
            headers,
            fetch_headers: asks_for_headers.then_some((sink::lay_out, sink_ptr.cast())),
            body: &raw mut body,
            upgrade: &raw mut upgrade,
            protocol: protocol.as_deref(),
        };
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        let App { plugin, app, .. } = self.app();
        let status = parts.with_abi(head, |request| {
            waker.with_abi(context.waker(), |waker| {
                let context = Sink::context(sink_ptr, waker);
                // SAFETY: the plugin does not free the app while `self`, a request, is in flight. The slot is empty.
                // `request` and `context` are valid until the call returns.
                unsafe { (plugin.call)(*app, request, slot.as_mut_ptr(), &raw const context) }
            })
        });
        if status != poll::PENDING {
            return CallResult::Answered(sink.into_result(status, self, response));
        }
        CallResult::Pending(Call::new(self, waker, slot))
    }
}

/// A pending call of an app.
///
/// The request stays in flight until the body of the response is dropped. Dropping a pending `Call` cancels the
/// request: the plugin drops the app's future in the app's runtime.
#[must_use = "a call does nothing unless polled"]
#[derive(Debug)]
pub struct Call {
    /// `None` after the call has returned its result.
    in_flight: Option<InFlight>,
    waker: PollWaker,
    /// Holds the app's future until the call has returned its result.
    slot: Slot,
}

impl Call {
    /// Creates a call that was polled once. `slot` holds the pending call, and `waker` is the waker that the app has.
    pub(super) fn new(in_flight: InFlight, waker: PollWaker, slot: Slot) -> Self {
        Self {
            in_flight: Some(in_flight),
            waker,
            slot,
        }
    }

    /// Polls the app's future. If the result is a response, its status and header fields are written to `response`.
    ///
    /// # Panics
    ///
    /// Panics if a poll before this poll has returned `Ready`.
    pub fn poll_response<R>(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Response<R>,
    ) -> Poll<Result<Body, CallError>> {
        let Self {
            in_flight,
            waker,
            slot,
        } = self;
        let Some(request) = in_flight else {
            panic!("a call was polled after it was ready");
        };
        let plugin = request.app().plugin;
        let mut sink = Sink::new(HeaderMap::new());
        let sink_ptr = &raw mut sink;
        let status = waker.with_abi(context.waker(), |waker| {
            let context = Sink::context(sink_ptr, waker);
            // SAFETY: `in_flight` is `Some`, so the slot still holds the pending call. The slot is on the heap, so it
            // has not moved.
            unsafe { (plugin.poll)(slot.as_mut_ptr(), &raw const context) }
        });
        if status == poll::PENDING {
            return Poll::Pending;
        }
        let Some(in_flight) = in_flight.take() else {
            unreachable!("`in_flight` was checked above");
        };
        Poll::Ready(sink.into_result(status, in_flight, response))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            // SAFETY: `in_flight` is `Some`, so the slot still holds the pending call. The slot is on the heap, so it
            // has not moved.
            unsafe { (in_flight.app().plugin.cancel)(self.slot.as_mut_ptr()) };
        }
    }
}

fn is_small(body: &impl http_body::Body) -> bool {
    let len = body.size_hint().exact();
    len.is_some_and(|len| len <= MAX_SMALL_BODY)
}

/// The maximum size in bytes of a request body that is polled before the app is called.
const MAX_SMALL_BODY: u64 = 64 << 10;
