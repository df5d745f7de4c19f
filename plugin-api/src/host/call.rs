//! A call of an app: how it starts, and its future while it has to wait.

use std::{
    mem,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, header::EXPECT, request};

use super::{
    App, Body, InFlight, Target,
    call_error::CallError,
    caught::Caught,
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
pub enum Called {
    /// The app answered at once, as most do.
    Answered(Result<Body, CallError>),
    /// The app has to wait for something, and has the waker of the task.
    Pending(Call),
}

impl InFlight {
    /// Calls the app with a request. The request counts as in the app until the body of the response is dropped.
    ///
    /// The header fields are moved out of `head`. A request without a `body` has an empty one. Status and header
    /// fields of the response are written to `response`.
    pub fn call<B, R>(
        self,
        head: &mut request::Parts,
        body: Option<B>,
        target: Target<'_>,
        context: &mut Context<'_>,
        response: &mut Response<R>,
    ) -> Called
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let mut body = match body {
            Some(body) if body.is_end_stream() => abi::Body::empty(),
            // The bytes of a small body mostly came with the head. If the client waits for `100 Continue`, it is the
            // app's poll that asks for the body.
            Some(body) if is_small(&body) && !head.headers.contains_key(EXPECT) => {
                export_unpin(body, &Caught, context)
            }
            Some(body) => export(body, Caught),
            None => abi::Body::empty(),
        };
        let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        // The app borrows the header fields until the response comes. Then their map takes those of the response.
        let mut sink = Sink::new(mem::take(&mut head.headers));
        let asks = self.app().asks_for_headers;
        let headers = if asks { Headers::NONE } else { sink.lay_out() };
        let to_sink = &raw mut sink;
        let lent = AbiRequestParts {
            mount: target.mount,
            peer: target.peer,
            request_id: target.request_id,
            headers,
            lay_out: asks.then_some((sink::lay_out, to_sink.cast())),
            body: &raw mut body,
            upgrade: &raw mut upgrade,
            protocol: protocol.as_deref(),
        };
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        let App { plugin, app, .. } = self.app();
        let polled = lent.with_abi(head, |request| {
            waker.with_abi(context.waker(), |waker| {
                let context = Sink::context(to_sink, waker);
                // SAFETY: an app is not dropped with a request in it; the rest is borrowed for the
                // call.
                unsafe { (plugin.call)(*app, request, slot.as_mut(), &raw const context) }
            })
        });
        if polled != poll::PENDING {
            return Called::Answered(sink.answer(polled, self, response));
        }
        Called::Pending(Call::new(self, waker, slot))
    }
}

/// A call of an app that has to wait for something.
///
/// Dropping it cancels the request: the app's future is dropped in the app's runtime. The request
/// counts as being in the app until the response's body is dropped.
#[must_use = "a call does nothing unless polled"]
#[derive(Debug)]
pub struct Call {
    /// None once the call is ready.
    in_flight: Option<InFlight>,
    waker: PollWaker,
    slot: Slot,
}

impl Call {
    /// A call that was polled, and whose future is in `slot`.
    pub(super) fn new(in_flight: InFlight, waker: PollWaker, slot: Slot) -> Self {
        Self {
            in_flight: Some(in_flight),
            waker,
            slot,
        }
    }

    /// Polls the app's future. When it has a response, its status and headers come to `response`.
    ///
    /// # Panics
    ///
    /// When it is polled after it was ready.
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
        let Some(app) = in_flight else {
            panic!("a call was polled after it was ready");
        };
        let plugin = app.app().plugin;
        let mut sink = Sink::new(HeaderMap::new());
        let to_sink = &raw mut sink;
        let polled = waker.with_abi(context.waker(), |waker| {
            let context = Sink::context(to_sink, waker);
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (plugin.poll)(slot.as_mut(), &raw const context) }
        });
        if polled == poll::PENDING {
            return Poll::Pending;
        }
        let Some(in_flight) = in_flight.take() else {
            unreachable!("it was there");
        };
        Poll::Ready(sink.answer(polled, in_flight, response))
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

fn is_small(body: &impl http_body::Body) -> bool {
    body.size_hint().exact().is_some_and(|len| len <= SMALL)
}

/// A body of up to this many bytes is polled before it crosses.
const SMALL: u64 = 64 << 10;
