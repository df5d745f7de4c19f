//! The service that hyper calls with each request of a connection.

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
    dev::Dev,
    dispatch::{Client, Dispatch},
    request::{self, PendingResponse},
    response_body::ResponseBody,
};

/// Answers the requests of one connection.
///
/// `C` is a reference to the state that these requests share. Over HTTP/1 the task of the connection
/// answers one request at a time, so that a plain reference is enough. Over HTTP/2 each request has a task
/// of its own, which needs an `Arc`.
#[derive(Clone, Copy, Debug)]
pub struct Service<C>(C);

/// The state that the requests of a connection share.
#[derive(Debug)]
pub struct SharedState {
    /// Finds the apps of the requests.
    pub dispatch: Arc<Dispatch>,
    /// The part for a development session. None in any other server.
    pub dev: Option<Arc<Dev>>,
    /// The client that sends the requests.
    pub client: Client,
}

impl<C: Deref<Target = SharedState> + Clone> Service<C> {
    /// Returns the service of a connection.
    pub fn new(shared: C) -> Self {
        Self(shared)
    }
}

impl<C> hyper::service::Service<Request<Incoming>> for Service<C>
where
    C: Deref<Target = SharedState> + Clone + Unpin,
{
    type Response = Response<ResponseBody>;
    /// Every failure is answered by a response.
    type Error = Infallible;
    type Future = ResponseFuture<C>;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture<C> {
        let (head, body) = request.into_parts();
        ResponseFuture {
            shared: self.0.clone(),
            head,
            body: Some(body),
            pending: None,
        }
    }
}

/// The future of a response. It allocates only when the response is not ready at the first poll.
pub struct ResponseFuture<C> {
    shared: C,
    /// The head of the request. The app has taken parts of it once it was called.
    head: Parts,
    /// The body of the request. None after the first poll.
    body: Option<Incoming>,
    /// The rest of the work when the first poll gave no response.
    pending: Option<PendingResponse>,
}

impl<C: Deref<Target = SharedState> + Unpin> Future for ResponseFuture<C> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.poll_response(context));
        let SharedState {
            dispatch, client, ..
        } = &*self.shared;
        if dispatch.asks_to_close.load(Ordering::Relaxed) {
            ask_to_close(&mut response, &client.activity);
        }
        Poll::Ready(Ok(response))
    }
}

impl<C: Deref<Target = SharedState> + Unpin> ResponseFuture<C> {
    /// Polls for the response of the app or the host.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        let this = self;
        if let Some(pending) = &mut this.pending {
            return pending.as_mut().poll(context);
        }
        let Some(body) = this.body.take() else {
            panic!("a response was polled after it was ready");
        };
        let SharedState {
            dispatch,
            dev,
            client,
        } = &*this.shared;
        if let Some(dev) = dev {
            let pending = dev.answer(dispatch, &mut this.head, body, client);
            return this.pending.insert(pending).as_mut().poll(context);
        }
        request::begin(
            dispatch,
            &mut this.head,
            body,
            client,
            context,
            &mut this.pending,
        )
    }
}

/// Asks the client to close its connection, if that speaks HTTP/1 (RFC 9112, section 9.6). A client of HTTP/2 is
/// asked by a frame. A connection that an app takes over carries no more requests.
fn ask_to_close(response: &mut Response<ResponseBody>, activity: &Activity) {
    if activity.is_http1() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

impl<C> fmt::Debug for ResponseFuture<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ResponseFuture")
    }
}
