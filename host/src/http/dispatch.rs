//! From a request to an app, and an answer where there is none.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::Body;
use hyper::body::Incoming;
use plugin_api::host::{Call, CallError, InFlight, Target};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    activity::Activity,
    body::{RequestBody, ResponseBody},
    trail::{Trail, Trails},
    upgrade,
};
use crate::{
    log::{access::Outcome, request},
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

    /// Answers one request of a connection to `peer`.
    ///
    /// # Errors
    ///
    /// Never: what goes wrong is answered.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let answering = activity.request();
        let bodiless = request.version() == Version::HTTP_2 && request.method() == Method::HEAD;
        let mut trail = self.trails.begin(&request, peer);
        let log = trail.log();
        let response =
            request::scoped(log, self.respond(request, peer, activity, &mut trail)).await;
        let mut response = response.unwrap_or_else(|refusal| {
            trail.end(Outcome::Refused);
            refusal.response()
        });
        trail.respond(&mut response);
        let response = if bodiless {
            without_body(response)
        } else {
            response
        };
        Ok(response.map(|body| body.until_sent(answering, trail)))
    }

    async fn respond(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        trail: &mut Trail,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if request.headers().len() > self.max_headers {
            return Err(Refusal::TooManyHeaders);
        }
        if request.body().size_hint().lower() > self.max_body_size {
            return Err(Refusal::BodyTooLarge);
        }
        let (in_flight, mount, generation) = self.enter(request.uri().path()).await?;
        trail.enter(generation.name, generation.number);
        let target = Target {
            mount,
            peer: Some(peer),
            request_id: trail.id(),
            upgrade: upgrade::take(&mut request, &in_flight, &generation.cut, activity),
        };
        let (head, body) = request.into_parts();
        let (body, exceeded) = RequestBody::new(body, self.max_body_size);
        let called = until_cut(
            Call::new(in_flight, Request::from_parts(head, body), target),
            &generation.cut,
        )
        .await;
        if exceeded.load(Ordering::Relaxed) {
            return Err(Refusal::BodyTooLarge);
        }
        match called {
            None => {
                trail.end(Outcome::CutOff);
                Err(Refusal::Unavailable)
            }
            Some(Ok(response)) => {
                if response.status().is_server_error() {
                    generation.faults.failed();
                }
                let cut = generation.cut.clone();
                Ok(response.map(|body| ResponseBody::app(body, cut)))
            }
            Some(Err(error)) => {
                generation.faults.failed();
                trail.end(error.into());
                if error == CallError::Invalid {
                    error!(
                        plugin = generation.name,
                        error = &error as &dyn std::error::Error,
                        "No response"
                    );
                }
                Err(Refusal::Failed)
            }
        }
    }

    /// Finds the app for `path` and enters it. Waits while the app hands its state over.
    async fn enter(&self, path: &str) -> Result<(InFlight, Arc<str>, Arc<Generation>), Refusal> {
        loop {
            let generation = {
                let routes = self.registry.routes();
                let route = routes.find(path).ok_or(Refusal::NotFound)?;
                let Route {
                    serving: Some(generation),
                    mount,
                    ..
                } = route
                else {
                    return Err(Refusal::Unavailable);
                };
                if generation.faults.are_too_many() {
                    return Err(Refusal::Unavailable);
                }
                if let Some(in_flight) = generation.app.enter() {
                    return Ok((in_flight, Arc::clone(mount), Arc::clone(generation)));
                }
                Arc::clone(generation)
            };
            // Either it hands over, or it is closed: but then its routes were replaced before, and
            // there are others to look at.
            generation.app.resumed().await;
        }
    }
}

/// Awaits a call, or drops it when `cut` is cancelled. That is looked at only when the call has to
/// wait.
async fn until_cut<F: Future>(call: F, cut: &CancellationToken) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut waiting = pin!(None);
    poll_fn(|context| {
        if let Poll::Ready(done) = call.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        if waiting.is_none() {
            waiting.set(Some(cut.cancelled()));
        }
        let waiting: Option<Pin<_>> = waiting.as_mut().as_pin_mut();
        waiting.map_or(Poll::Pending, |waiting| {
            waiting.poll(context).map(|()| None)
        })
    })
    .await
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
