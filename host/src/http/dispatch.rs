//! From a request to an app, and an answer where there is none.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use http_body::Body;
use hyper::body::Incoming;
use plugin_api::host::{Body as AppBody, CallError, Called, InFlight, Prepared, Target};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    activity::{Activity, Answering},
    body::{Exceeded, RequestBody, ResponseBody},
    trail::{Trail, Trails},
    upgrade,
};
use crate::{
    log::{access::Outcome, request, request_id::RequestId},
    plugin::{
        generation::Generation,
        registry::{Registry, Route},
    },
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

    /// Answers a request, or begins to. An app that does not have to wait is done when this returns.
    pub fn begin(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Begun {
        let answering = client.activity.request();
        let (head, incoming) = request.into_parts();
        let request = Prepared::new(head, RequestBody::new(incoming, self.max_body_size));
        let exchange = Exchange {
            is_http2_head: is_http2_head(request.head()),
            exceeded: request.body().exceeded(),
            trail: self.trails.begin(&request, client.peer),
            answering,
        };
        self.enter(request, exchange, client, context)
    }

    /// Finds the app for a request, and calls it.
    fn enter(
        self: &Arc<Self>,
        request: Prepared<RequestBody>,
        mut exchange: Exchange,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Begun {
        let head = request.head();
        if head.headers.len() > self.max_headers {
            return Begun::Answered(exchange.refused(Refusal::TooManyHeaders));
        }
        if request.body().size_hint().lower() > self.max_body_size {
            return Begun::Answered(exchange.refused(Refusal::BodyTooLarge));
        }
        let routes = self.registry.routes();
        let Some(route) = routes.find(head.uri.path()) else {
            return Begun::Answered(exchange.refused(Refusal::NotFound));
        };
        let generation = match &route.serving {
            Some(generation) if !generation.faults.are_too_many() => generation,
            _ => return Begun::Answered(exchange.refused(Refusal::Unavailable)),
        };
        let Some(in_flight) = generation.app.enter() else {
            // Either it hands over, or it is closed: but then its routes were replaced before, and
            // there are others to look at.
            let (generation, dispatch) = (Arc::clone(generation), Arc::clone(self));
            let client = client.clone();
            return Begun::Waiting(Box::pin(async move {
                generation.app.resumed().await;
                dispatch.again(request, exchange, client).await
            }));
        };
        exchange.trail.enter(generation.name, generation.number);
        match exchange.call(request, in_flight, route, generation, client, context) {
            Called::Answered(called) => Begun::Answered(exchange.answered(called, generation)),
            Called::Pending(call) => {
                let generation = Arc::clone(generation);
                let log = exchange.trail.log();
                let wait = async move {
                    let called = until_cut(call, &generation.cut).await;
                    match called {
                        Some(called) => exchange.answered(called, &generation),
                        None => exchange.cut_off(),
                    }
                };
                let mut wait = Box::pin(request::scoped(log, wait));
                match wait.as_mut().poll(context) {
                    Poll::Ready(response) => Begun::Answered(response),
                    Poll::Pending => Begun::Waiting(wait),
                }
            }
        }
    }

    /// Finds the app for a request that has waited, and calls it.
    async fn again(
        self: Arc<Self>,
        request: Prepared<RequestBody>,
        exchange: Exchange,
        client: Client,
    ) -> Response<ResponseBody> {
        let mut request = Some((request, exchange));
        let mut waiting: Option<Wait> = None;
        poll_fn(|context| {
            if let Some((request, exchange)) = request.take() {
                match self.enter(request, exchange, &client, context) {
                    Begun::Answered(response) => return Poll::Ready(response),
                    Begun::Waiting(wait) => waiting = Some(wait),
                }
            }
            waiting
                .as_mut()
                .map_or(Poll::Pending, |wait| wait.as_mut().poll(context))
        })
        .await
    }
}

/// The client at the other end of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub peer: SocketAddr,
    /// What the connection is doing.
    pub activity: Arc<Activity>,
}

/// What came of a request so far.
pub enum Begun {
    /// The response.
    Answered(Response<ResponseBody>),
    /// There will be one.
    Waiting(Wait),
}

/// The future of a response that something has to be waited for.
pub type Wait = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// A request on its way to its response.
#[derive(Debug)]
struct Exchange {
    trail: Trail,
    answering: Answering,
    exceeded: Option<Exceeded>,
    is_http2_head: bool,
}

impl Exchange {
    fn call(
        &mut self,
        mut request: Prepared<RequestBody>,
        in_flight: InFlight,
        route: &Route,
        generation: &Generation,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Called {
        let id = self.trail.id();
        let target = Target {
            mount: &route.mount,
            peer: Some(client.peer),
            request_id: id.as_ref().map(RequestId::as_str),
            upgrade: upgrade::take(&mut request, &in_flight, &generation.cut, &client.activity),
        };
        self.trail
            .scope(|| request.call(in_flight, target, context))
    }

    /// The response that the app gave, or why there is none.
    fn answered(
        mut self,
        called: Result<Response<AppBody>, CallError>,
        generation: &Arc<Generation>,
    ) -> Response<ResponseBody> {
        if self.exceeded.as_ref().is_some_and(Exceeded::is_so) {
            return self.refused(Refusal::BodyTooLarge);
        }
        match called {
            Ok(response) => {
                if response.status().is_server_error() {
                    generation.faults.failed();
                }
                self.respond(response.map(|body| ResponseBody::app(body, generation)))
            }
            Err(error) => {
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
                self.refused(Refusal::Failed)
            }
        }
    }

    fn cut_off(mut self) -> Response<ResponseBody> {
        self.trail.end(Outcome::CutOff);
        self.refused(Refusal::Unavailable)
    }

    fn refused(mut self, refusal: Refusal) -> Response<ResponseBody> {
        self.trail.end(Outcome::Refused);
        self.respond(refusal.response())
    }

    fn respond(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let Self {
            mut trail,
            answering,
            is_http2_head,
            ..
        } = self;
        trail.respond(&mut response);
        let response = if is_http2_head {
            without_body(response)
        } else {
            response
        };
        response.map(|body| body.until_sent(answering, trail))
    }
}

/// Awaits a call that was polled just now, or drops it when `cut` is cancelled.
async fn until_cut<F: Future>(call: F, cut: &CancellationToken) -> Option<F::Output> {
    let (mut call, mut cut) = (pin!(call), pin!(cut.cancelled()));
    let mut polled = true;
    poll_fn(|context| {
        if !std::mem::take(&mut polled)
            && let Poll::Ready(done) = call.as_mut().poll(context)
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

/// The response to a `HEAD`, which hyper leaves to its user in HTTP/2.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    // No bytes may as well mean that the app has left them out.
    if let Some(len @ 1..) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| len.into());
    }
    response.map(|_| ResponseBody::own(""))
}

/// A request that no app answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Its body is larger than this server takes.
    BodyTooLarge,
    /// The app failed. The log has why.
    Failed,
    /// Nothing is mounted there.
    NotFound,
    /// It has more headers than this server takes.
    TooManyHeaders,
    /// The app is known, but cannot serve now.
    Unavailable,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::own(format!("{}\n", self.status())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        match self {
            // The rest of it would have to be read first.
            Self::BodyTooLarge => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Failed | Self::NotFound | Self::TooManyHeaders => {}
        }
        response
    }
}
