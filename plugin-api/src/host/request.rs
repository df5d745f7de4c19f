//! A request that crosses: the call of an app.

use std::{mem, net::SocketAddr, task::Context};

use http::{Response, header::EXPECT, request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    App, Call, Called, InFlight,
    call::{Caught, Sink, lay_out},
    slot::Slot,
    stream::export_stream,
};
use crate::{
    BoxError,
    abi::{self, Headers, poll},
    crossing::{Guard, Lent, PollWaker, export, export_pinned},
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

impl InFlight {
    /// Calls the app with a request, which it has until its response's body is dropped. The headers
    /// go with it: `head` has none then. No `body` is an empty one. Status and headers of the
    /// response come to `response`.
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
            // What came with the head is there already. A client that waits to be asked for its body
            // is asked by the app.
            Some(body) if is_small(&body) && !head.headers.contains_key(EXPECT) => {
                export_pinned(body, &Caught, context)
            }
            Some(body) => export(body, Caught),
            None => abi::Body::empty(),
        };
        let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        // The headers are borrowed until the response comes, and then are the room for its own.
        let mut sink = Sink::new(mem::take(&mut head.headers));
        let asks = self.app().asks_for_headers;
        let headers = if asks { Headers::NONE } else { sink.lay_out() };
        let to_sink = &raw mut sink;
        let lent = Lent {
            mount: target.mount,
            peer: target.peer,
            request_id: target.request_id,
            headers,
            lay_out: asks.then_some((lay_out, to_sink.cast())),
            body: &raw mut body,
            upgrade: &raw mut upgrade,
            protocol: protocol.as_deref(),
        };
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        let App { plugin, app, .. } = self.app();
        let polled = lent.with(head, |request| {
            waker.lend(context.waker(), |waker| {
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

fn is_small(body: &impl http_body::Body) -> bool {
    body.size_hint().exact().is_some_and(|len| len <= SMALL)
}

/// Up to how many bytes a body crosses at once when it is there.
const SMALL: u64 = 64 << 10;
