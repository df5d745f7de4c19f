//! What hyper calls with each request of a connection.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION, request::Parts};
use hyper::body::Incoming;

use super::{
    activity::Activity,
    dispatch::{Client, Dispatch},
    request::{self, PendingResponse},
    response_body::ResponseBody,
};

/// Answers the requests of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Service<C>(C);

/// What the requests of a connection share.
#[derive(Debug)]
pub struct Shared {
    /// Answers them.
    pub dispatch: Arc<Dispatch>,
    /// Who sends them.
    pub client: Client,
}

impl<C: Deref<Target = Shared> + Clone> Service<C> {
    /// `shared` is lent to each request, or counted, as the protocol asks for.
    pub fn new(shared: C) -> Self {
        Self(shared)
    }
}

impl<C> hyper::service::Service<Request<Incoming>> for Service<C>
where
    C: Deref<Target = Shared> + Clone + Unpin,
{
    type Response = Response<ResponseBody>;
    /// What goes wrong is answered.
    type Error = Infallible;
    type Future = Answer<C>;

    fn call(&self, request: Request<Incoming>) -> Answer<C> {
        let (head, body) = request.into_parts();
        Answer {
            shared: self.0.clone(),
            head,
            body: Some(body),
            wait: None,
        }
    }
}

/// The future of a response. It allocates only when it has to wait.
pub struct Answer<C> {
    shared: C,
    /// What is left of the request.
    head: Parts,
    /// Some until it is first polled.
    body: Option<Incoming>,
    /// Some when there is something to wait for.
    wait: Option<PendingResponse>,
}

impl<C: Deref<Target = Shared> + Unpin> Future for Answer<C> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.poll_response(context));
        let Shared { dispatch, client } = &*self.shared;
        if dispatch.asks_to_close.load(Ordering::Relaxed) {
            ask_to_close(&mut response, &client.activity);
        }
        Poll::Ready(Ok(response))
    }
}

impl<C: Deref<Target = Shared> + Unpin> Answer<C> {
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        let this = self;
        if let Some(wait) = &mut this.wait {
            return wait.as_mut().poll(context);
        }
        let Some(body) = this.body.take() else {
            panic!("an answer was polled after it was ready");
        };
        let Shared { dispatch, client } = &*this.shared;
        if let Some(dev) = &dispatch.dev {
            let wait = dev.answer(dispatch, &mut this.head, body, client);
            return this.wait.insert(wait).as_mut().poll(context);
        }
        request::begin(
            dispatch,
            &mut this.head,
            body,
            client,
            context,
            &mut this.wait,
        )
    }
}

/// Asks the client to close a connection of HTTP/1. One of HTTP/2 is told by a frame, and one that an app
/// takes over is no connection for requests any more.
fn ask_to_close(response: &mut Response<ResponseBody>, activity: &Activity) {
    if activity.is_http1() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

impl<C> fmt::Debug for Answer<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Answer")
    }
}
