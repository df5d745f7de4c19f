//! A request that is about to cross.

use std::{mem, net::SocketAddr, task::Context};

use http::{Extensions, Response, header::EXPECT, request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    App, Call, Called, InFlight,
    call::{Caught, Sink},
    slot::Slot,
    stream::export_stream,
};
use crate::{
    BoxError,
    abi::{self, poll},
    crossing::{Guard, HeaderFields, Lent, PollWaker, export, export_pinned},
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
pub struct Prepared<'a, B> {
    head: &'a mut request::Parts,
    /// Some until the app is called.
    body: Option<B>,
    /// Borrows from the headers of `head`, which stay as they are; both go with the call.
    fields: HeaderFields,
}

impl<'a, B> Prepared<'a, B> {
    /// Looks at the header fields of a request.
    pub fn new(head: &'a mut request::Parts, body: B) -> Self {
        let mut fields = HeaderFields::default();
        fields.add(&head.headers);
        Self {
            head,
            body: Some(body),
            fields,
        }
    }

    /// The head of the request.
    #[must_use]
    pub fn head(&self) -> &request::Parts {
        self.head
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

    /// The same, when it has to wait.
    pub fn into_body(self) -> Option<B> {
        self.body
    }

    /// The first value of a header field whose name is not one of those that the `http` crate has a
    /// constant for. In lower case; quicker than asking the headers.
    #[must_use]
    pub fn unusual_field(&self, name: &str) -> Option<&[u8]> {
        // SAFETY: the fields borrow from the headers, which are there and unchanged for as long as
        // there are fields.
        unsafe { self.fields.find_unnumbered(name) }
    }

    /// Calls the app, which has the request until its response's body is dropped. The headers and the
    /// body go with it: what is left of them is empty. Status and headers of the response come to
    /// `response`.
    pub fn call<R>(
        &mut self,
        in_flight: InFlight,
        target: Target<'_>,
        context: &mut Context<'_>,
        response: &mut Response<R>,
    ) -> Called
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        // Its headers go below, so that what borrows from them must not stay.
        let fields = mem::replace(&mut self.fields, HeaderFields::NONE);
        let mut body = match self.body.take() {
            Some(body) if body.is_end_stream() => abi::Body::empty(),
            // What came with the head is there already. A client that waits to be asked for its body
            // is asked by the app.
            Some(body) if is_small(&body) && !fields.has_numbered(&EXPECT) => {
                export_pinned(body, &Caught, context)
            }
            Some(body) => export(body, Caught),
            None => abi::Body::empty(),
        };
        let (mut upgrade, protocol) = target.upgrade.map_or((abi::Stream::NONE, None), |upgrade| {
            (upgrade.stream, upgrade.protocol)
        });
        let lent = Lent {
            mount: target.mount,
            peer: target.peer,
            request_id: target.request_id,
            headers: fields.as_abi(),
            body: &raw mut body,
            upgrade: &raw mut upgrade,
            protocol: protocol.as_deref(),
        };
        let mut slot = Slot::take();
        let mut waker = PollWaker::default();
        // The headers are borrowed until the response comes, and then are the room for its own.
        let mut sink = Sink::new(mem::take(&mut self.head.headers));
        let App { plugin, app, .. } = in_flight.app();
        let polled = lent.with(self.head, |request| {
            waker.lend(context.waker(), |waker| {
                let context = sink.context(waker);
                // SAFETY: an app is not dropped with a request in it; the rest is borrowed for the
                // call.
                unsafe { (plugin.call)(*app, request, slot.as_mut(), &raw const context) }
            })
        });
        if polled != poll::PENDING {
            return Called::Answered(sink.answer(polled, in_flight, response));
        }
        Called::Pending(Call::new(in_flight, waker, slot))
    }
}

fn is_small(body: &impl http_body::Body) -> bool {
    body.size_hint().exact().is_some_and(|len| len <= SMALL)
}

/// Up to how many bytes a body crosses at once when it is there.
const SMALL: u64 = 64 << 10;
