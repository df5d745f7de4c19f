//! From a request to an app, and an answer where there is none.

use std::{
    future::{Future, poll_fn},
    mem,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, Version, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use hyper::body::Incoming;
use plugin_api::host::{Body as AppBody, Call, CallError, Called, Target};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    activity::{Activity, Answering},
    body::{Exceeded, RequestBody, ResponseBody},
    refusal::Refusal,
    trail::{Trail, Trails},
    upgrade,
};
use crate::{
    log::{access::Outcome, request, request_id::RequestId},
    plugin::{generation::Generation, registry::Registry},
};

/// Answers requests.
#[derive(Debug)]
pub struct Dispatch {
    registry: Arc<Registry>,
    max_headers: usize,
    max_body_size: u64,
    /// What requests leave in the log.
    pub trails: Trails,
}

impl Dispatch {
    /// Answers by the apps of `registry`.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        max_headers: usize,
        max_body_size: u64,
        trails: Trails,
    ) -> Self {
        Self {
            registry,
            max_headers,
            max_body_size,
            trails,
        }
    }

    /// Answers a request, or begins to. An app that does not have to wait is done when this returns;
    /// for another, `wait` is what there is to poll from now on, and was polled.
    pub fn begin(
        self: &Arc<Self>,
        head: &mut Parts,
        incoming: Incoming,
        client: &Client,
        context: &mut Context<'_>,
        wait: &mut Option<Wait>,
    ) -> Poll<Response<ResponseBody>> {
        let answering = client.activity.request();
        let body = RequestBody::new(incoming, self.max_body_size);
        let mut underway = Underway {
            is_http2_head: is_http2_head(head),
            exceeded: body.exceeded(),
            trail: self.trails.begin(head, client.peer),
            answering,
        };
        let mut body = Some(body);
        // It is made in its place, and stays there: heads are large to move.
        let mut response = Response::default();
        let entered = self.enter(
            head,
            &mut body,
            &mut underway,
            &mut response,
            client,
            context,
        );
        let future: Wait = match entered {
            Entered::Answered => {
                underway.respond(&mut response);
                return Poll::Ready(response);
            }
            Entered::Pending(call, generation) => {
                Box::pin(underway.wait(call, generation, response))
            }
            Entered::Paused(generation) => {
                let head = mem::replace(head, Request::new(()).into_parts().0);
                let (dispatch, client) = (Arc::clone(self), client.clone());
                Box::pin(dispatch.again(head, body, underway, generation, client))
            }
        };
        wait.insert(future).as_mut().poll(context)
    }

    /// Finds the app for a request, and calls it; then the headers and the body are gone.
    fn enter(
        &self,
        head: &mut Parts,
        body: &mut Option<RequestBody>,
        underway: &mut Underway,
        response: &mut Response<ResponseBody>,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Entered {
        if head.headers.len() > self.max_headers {
            return underway.refused(Refusal::TooManyHeaders, response);
        }
        let len = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if len > self.max_body_size {
            return underway.refused(Refusal::BodyTooLarge, response);
        }
        let routes = self.registry.routes();
        let Some(route) = routes.find(head.uri.path()) else {
            return underway.refused(Refusal::NotFound, response);
        };
        let generation = match &route.serving {
            Some(generation) if !generation.faults.are_too_many() => generation,
            _ => return underway.refused(Refusal::Unavailable, response),
        };
        let Some(in_flight) = generation.app.enter() else {
            return Entered::Paused(Arc::clone(generation));
        };
        let trail = &mut underway.trail;
        trail.enter(generation.name, generation.number);
        let id = trail.id();
        let target = Target {
            mount: &route.mount,
            peer: Some(client.peer),
            request_id: id.as_ref().map(RequestId::as_bytes),
            upgrade: upgrade::take(head, &in_flight, &generation.cut, &client.activity),
        };
        match trail.scope(|| in_flight.call(head, body.take(), target, context, response)) {
            Called::Answered(called) => {
                underway.answered(called, generation, response);
                Entered::Answered
            }
            Called::Pending(call) => Entered::Pending(call, Arc::clone(generation)),
        }
    }

    /// Finds the app for a request that waits for this generation, and calls it.
    async fn again(
        self: Arc<Self>,
        mut head: Parts,
        mut body: Option<RequestBody>,
        mut underway: Underway,
        mut generation: Arc<Generation>,
        client: Client,
    ) -> Response<ResponseBody> {
        let mut response = Response::default();
        loop {
            // Either it hands over, or it is closed: but then its routes were replaced before, and
            // there are others to look at.
            generation.app.resumed().await;
            let entered = poll_fn(|context| {
                let (response, underway) = (&mut response, &mut underway);
                Poll::Ready(self.enter(&mut head, &mut body, underway, response, &client, context))
            });
            match entered.await {
                Entered::Answered => {
                    underway.respond(&mut response);
                    return response;
                }
                Entered::Pending(call, generation) => {
                    return underway.wait(call, generation, response).await;
                }
                Entered::Paused(other) => generation = other,
            }
        }
    }
}

/// What came of a request at its app's door.
enum Entered {
    /// Its response is there.
    Answered,
    /// It was polled, and waits.
    Pending(Call, Arc<Generation>),
    /// The app lets no request in.
    Paused(Arc<Generation>),
}

/// The client at the other end of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub peer: SocketAddr,
    /// What the connection is doing.
    pub activity: Arc<Activity>,
}

/// The future of a response that something has to be waited for.
pub type Wait = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// A request on its way to its response.
#[derive(Debug)]
struct Underway {
    trail: Trail,
    answering: Answering,
    exceeded: Option<Exceeded>,
    is_http2_head: bool,
}

impl Underway {
    /// Waits for a call that was polled just now.
    fn wait(
        mut self,
        call: Call,
        generation: Arc<Generation>,
        mut response: Response<ResponseBody>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        request::scoped(self.trail.log(), async move {
            match until_cut(call, &generation.cut, &mut response).await {
                Some(called) => self.answered(called, &generation, &mut response),
                None => self.cut_off(&mut response),
            }
            self.respond(&mut response);
            response
        })
    }

    /// The app gave a response, or there is a reason why there is none.
    fn answered(
        &mut self,
        called: Result<AppBody, CallError>,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        if self.exceeded.as_ref().is_some_and(Exceeded::is_so) {
            return self.refusal(Refusal::BodyTooLarge, response);
        }
        match called {
            Ok(body) => {
                if response.status().is_server_error() {
                    generation.faults.failed();
                }
                *response.body_mut() = ResponseBody::app(body, generation);
            }
            Err(error) => self.failed(error, generation, response),
        }
    }

    #[cold]
    fn failed(
        &mut self,
        error: CallError,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.failed();
        self.trail.end(error.into());
        if error == CallError::Invalid {
            self.trail.scope(|| {
                error!(
                    plugin = generation.name,
                    error = &error as &dyn std::error::Error,
                    "No response"
                );
            });
        }
        self.refusal(Refusal::Failed, response);
    }

    fn cut_off(&mut self, response: &mut Response<ResponseBody>) {
        self.trail.end(Outcome::CutOff);
        self.refusal(Refusal::Unavailable, response);
    }

    #[cold]
    fn refused(&mut self, refusal: Refusal, response: &mut Response<ResponseBody>) -> Entered {
        self.refusal(refusal, response);
        Entered::Answered
    }

    #[cold]
    fn refusal(&mut self, refusal: Refusal, response: &mut Response<ResponseBody>) {
        self.trail.end(Outcome::Refused);
        refusal.answer(response);
    }

    /// The response is there, and goes to the connection.
    fn respond(self, response: &mut Response<ResponseBody>) {
        let Self {
            mut trail,
            answering,
            is_http2_head,
            ..
        } = self;
        trail.respond(response);
        if is_http2_head {
            without_body(response);
        }
        response.body_mut().until_sent(answering, trail);
    }
}

/// Awaits a call that was polled just now, or drops it when `cut` is cancelled.
async fn until_cut(
    mut call: Call,
    cut: &CancellationToken,
    response: &mut Response<ResponseBody>,
) -> Option<Result<AppBody, CallError>> {
    let mut cut = pin!(cut.cancelled());
    let mut polled = true;
    poll_fn(|context| {
        if !mem::take(&mut polled)
            && let Poll::Ready(done) = call.poll_response(context, response)
        {
            return Poll::Ready(Some(done));
        }
        cut.as_mut().poll(context).map(|()| None)
    })
    .await
}

fn is_http2_head(head: &Parts) -> bool {
    head.version == Version::HTTP_2 && head.method == Method::HEAD
}

/// Makes it the response to a `HEAD`, which hyper leaves to its user in HTTP/2.
fn without_body(response: &mut Response<ResponseBody>) {
    // No bytes may as well mean that the app has left them out.
    if let Some(len @ 1..) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| len.into());
    }
    *response.body_mut() = ResponseBody::default();
}
