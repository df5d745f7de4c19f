//! What hyper calls with each request of a connection.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::body::Incoming;

use super::{
    body::ResponseBody,
    dispatch::{Begun, Client, Dispatch, Wait},
};

/// Answers the requests of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dispatch: Arc<Dispatch>,
    client: Client,
}

impl Service {
    /// Answers the requests of `client` by `dispatch`.
    #[must_use]
    pub fn new(dispatch: Arc<Dispatch>, client: Client) -> Self {
        Self(Arc::new(Inner { dispatch, client }))
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    /// What goes wrong is answered.
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        Answer {
            service: self.clone(),
            request: Some(request),
            wait: None,
        }
    }
}

/// The future of a response. It is small, as hyper moves it, and allocates only when it has to wait.
pub struct Answer {
    service: Service,
    /// Some until it is first polled.
    request: Option<Request<Incoming>>,
    /// Some when there is something to wait for.
    wait: Option<Wait>,
}

impl Future for Answer {
    type Output = Result<Response<ResponseBody>, Infallible>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            service: Service(connection),
            request,
            wait,
        } = &mut *self;
        if let Some(wait) = wait {
            return wait.as_mut().poll(context).map(Ok);
        }
        let Some(request) = request.take() else {
            panic!("an answer was polled after it was ready");
        };
        match connection
            .dispatch
            .begin(request, &connection.client, context)
        {
            Begun::Answered(response) => Poll::Ready(Ok(response)),
            Begun::Waiting(begun) => {
                *wait = Some(begun);
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Answer")
    }
}
