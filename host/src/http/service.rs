//! The service of a connection. hyper calls it with each request.

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
    dev::DevLayer,
    dispatch::{Client, Dispatch},
    request::{self, PendingResponse},
    response_body::ResponseBody,
};

/// Answers the requests of one connection.
///
/// `C` is a pointer to the [`SharedState`] of the requests. Over HTTP/1 `C` is a plain reference, because the requests
/// run in the task of the connection. Over HTTP/2 `C` is an `Arc`, because each request runs in a task of its own.
#[derive(Clone, Copy, Debug)]
pub struct Service<C>(C);

/// The state that the requests of a connection share.
#[derive(Debug)]
pub struct SharedState {
    /// Finds the apps of the requests.
    pub dispatch: Arc<Dispatch>,
    /// The layer for a development session. `None` in all other servers.
    pub dev_layer: Option<Arc<DevLayer>>,
    /// The client that sends the requests.
    pub client: Client,
}

impl<C: Deref<Target = SharedState> + Clone> Service<C> {
    /// Creates the service of a connection.
    pub fn new(shared: C) -> Self {
        Self(shared)
    }
}

impl<C> hyper::service::Service<Request<Incoming>> for Service<C>
where
    C: Deref<Target = SharedState> + Clone + Unpin,
{
    type Response = Response<ResponseBody>;
    /// A failure is answered with a response, not with an error.
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

/// The future of a response. The future allocates memory only if the response is not ready at the first poll.
pub struct ResponseFuture<C> {
    shared: C,
    /// The head of the request. Its header fields are moved out when the app is called.
    head: Parts,
    /// The body of the request. `None` after the first poll.
    body: Option<Incoming>,
    /// The rest of the work, if the response was not ready at the first poll.
    pending: Option<PendingResponse>,
}

impl<C: Deref<Target = SharedState> + Unpin> Future for ResponseFuture<C> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    /// # Panics
    ///
    /// When the future is polled again after it was ready.
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
    /// Polls for the response. The first poll calls the app.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        let this = self;
        if let Some(pending) = &mut this.pending {
            return pending.as_mut().poll(context);
        }
        // The first poll: the request has not begun yet.
        let Some(body) = this.body.take() else {
            panic!("a response was polled after it was ready");
        };
        let SharedState {
            dispatch,
            dev_layer,
            client,
        } = &*this.shared;
        // Only a server of a development session has the layer. All other servers pay one check of a pointer.
        if let Some(dev_layer) = dev_layer {
            let pending = dev_layer.respond(dispatch, &mut this.head, body, client);
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

/// Adds `connection: close` to a response over HTTP/1, which asks the client to close the connection (RFC 9112,
/// section 9.6).
///
/// HTTP/2 has a frame for that, and does not allow the field. After an upgrade the connection carries no requests.
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
