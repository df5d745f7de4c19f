//! From a request to an app, and an answer where there is none.

use std::{
    future::{Future, poll_fn},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use http_body::Body;
use hyper::body::Incoming;
use plugin_api::host::{Call, Called, Target};
use tokio_util::sync::CancellationToken;

use super::{
    activity::Activity,
    dev::Dev,
    noted::Noted,
    refusal::Refusal,
    request_body::RequestBody,
    response_body::ResponseBody,
    target::{self, Verdict},
    trail::Trails,
    underway::Underway,
    upgrade,
};
use crate::{
    config::ClientLimits,
    log::request_id::RequestId,
    scoreboard,
    worker::{generation::Generation, registry::Registry},
};

/// Answers requests.
#[derive(Debug)]
pub struct Dispatch {
    registry: Arc<Registry>,
    max_headers: usize,
    max_body_size: u64,
    body_timeout: Duration,
    /// What requests leave in the log.
    pub trails: Trails,
    /// Whether each response over HTTP/1 asks its client to close the connection.
    pub(super) asks_to_close: AtomicBool,
    /// What a development session adds; none in another server.
    pub(super) dev: Option<Arc<Dev>>,
}

impl Dispatch {
    /// Answers by the apps of `registry`, within `limits`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, limits: &ClientLimits, trails: Trails) -> Self {
        Self {
            registry,
            max_headers: limits.max_headers.into(),
            max_body_size: limits.max_body_size,
            body_timeout: limits.body_timeout,
            trails,
            asks_to_close: AtomicBool::new(false),
            dev: Dev::from_environment(),
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
        let body = RequestBody::new(
            incoming,
            self.max_body_size,
            self.body_timeout,
            &client.activity,
        );
        let mut noted = Noted::of(head);
        let verdict = target::judge(head, &noted);
        if verdict == Verdict::Mend {
            target::mend(head);
            noted = Noted::again(head);
        }
        let trail = self.trails.begin(head, &noted, client.peer);
        let mut underway = Underway::new(head, trail, answering, body.limit_state());
        let mut body = Some(body);
        // It is made in its place, and stays there: heads are large to move.
        let mut response = Response::default();
        let entered = if let Verdict::Refuse(refusal) = verdict {
            refused(&mut underway, refusal, &mut response)
        } else {
            self.enter(
                head,
                &mut body,
                &mut underway,
                &mut response,
                client,
                context,
            )
        };
        let future: Wait = match entered {
            Entered::Answered => {
                underway.respond(&mut response);
                return Poll::Ready(response);
            }
            Entered::Pending(call, generation) => {
                Box::pin(underway.wait(call, generation, response))
            }
            Entered::Closed(door) => {
                let head = mem::replace(head, Request::new(()).into_parts().0);
                let (dispatch, client) = (Arc::clone(self), client.clone());
                Box::pin(dispatch.again(head, body, underway, door, client))
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
            return refused(underway, Refusal::TooManyHeaders, response);
        }
        let len = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if len > self.max_body_size {
            return refused(underway, Refusal::BodyTooLarge, response);
        }
        let routes = self.registry.routes();
        let Some(route) = routes.find(head.uri.path()) else {
            return refused(underway, Refusal::NotFound, response);
        };
        let generation = match &route.serving {
            Some(generation) if !generation.faults.are_too_many() => generation,
            None if let Some(arrival) = &route.arrival => {
                return Entered::Closed(Door::Arrival(arrival.clone()));
            }
            _ => return refused(underway, Refusal::Unavailable, response),
        };
        let Some(in_flight) = generation.app.enter() else {
            return Entered::Closed(Door::Paused(Arc::clone(generation)));
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
        let (method, path) = (&head.method, head.uri.path());
        let id = id.as_ref().map_or(&[][..], RequestId::as_bytes);
        let working = scoreboard::enter_request(generation.label, id, method, path);
        let called = trail.scope(|| in_flight.call(head, body.take(), target, context, response));
        if goes_on(&called) {
            trail.keep(working.note());
        }
        drop(working);
        match called {
            Called::Answered(called) => {
                underway.answered(called, generation, response);
                Entered::Answered
            }
            Called::Pending(call) => Entered::Pending(call, Arc::clone(generation)),
        }
    }

    /// Finds the app for a request that waits at this door, and calls it.
    async fn again(
        self: Arc<Self>,
        mut head: Parts,
        mut body: Option<RequestBody>,
        mut underway: Underway,
        mut door: Door,
        client: Client,
    ) -> Response<ResponseBody> {
        let mut response = Response::default();
        loop {
            // Either it hands over, or it is closed: but then its routes were replaced before, and
            // there are others to look at.
            door.opened().await;
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
                Entered::Closed(other) => door = other,
            }
        }
    }
}

/// Whether code of the app's is to run again for a request.
fn goes_on(called: &Called) -> bool {
    match called {
        Called::Answered(Ok(body)) => body.is_stream(),
        Called::Answered(Err(_)) => false,
        Called::Pending(_) => true,
    }
}

#[cold]
fn refused(
    underway: &mut Underway,
    refusal: Refusal,
    response: &mut Response<ResponseBody>,
) -> Entered {
    underway.refusal(refusal, response);
    Entered::Answered
}

/// What came of a request at its app's door.
enum Entered {
    /// Its response is there.
    Answered,
    /// It was polled, and waits.
    Pending(Call, Arc<Generation>),
    /// The app lets no request in for now.
    Closed(Door),
}

/// What a request waits for before it can enter its app.
enum Door {
    /// The app is about to come over from another worker.
    Arrival(CancellationToken),
    /// The generation hands its state over, or was closed.
    Paused(Arc<Generation>),
}

impl Door {
    /// Returns when it is worth another look at the routes.
    async fn opened(&self) {
        match self {
            Self::Arrival(arrival) => arrival.cancelled().await,
            Self::Paused(generation) => generation.app.resumed().await,
        }
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

/// The future of a response that something has to be waited for.
pub type Wait = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;
