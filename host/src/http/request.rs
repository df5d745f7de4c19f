//! One request, from its head to the response that is handed to hyper.
//!
//! [`begin`] makes a [`PendingRequest`] of the head. It finds the app ([`dispatch`](super::dispatch)) and
//! calls it. Most apps have their response ready at once, and then `begin` returns it and allocates
//! nothing. Otherwise the rest happens in a boxed future, which waits for the app, or first for the
//! moment when the app admits requests again.
//!
//! Every request ends in [`PendingRequest::respond`], whoever made the response. From then on the body of
//! the response carries the request's record, until hyper drops the body.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use hyper::body::Incoming;
use plugin_api::host::{Body as AppBody, Call, CallError, Called, Target};
use tracing::{debug, error};

use super::{
    activity::RequestGuard,
    call,
    dispatch::{self, Admission, Client, Dispatch, Door},
    fields,
    framing::{BodyFraming, Framing, FramingError},
    header_scan::HeaderScan,
    refusal::Refusal,
    request_body::{BodyLimitState, RequestBody},
    request_record::RequestRecord,
    response_body::ResponseBody,
    target::{self, HeadCheck},
    upgrade,
};
use crate::{
    log::{access::RequestOutcome, request, request_id::RequestId},
    scoreboard,
    worker::{generation::Generation, registry::Routes},
};

/// The future of a response that is not ready at once.
pub(super) type PendingResponse = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// Answers a request, or begins to.
///
/// Returns the response when it is ready at once. Otherwise `pending` is set to the future of the
/// response, which has been polled once with `context`; the caller polls it from then on.
pub(super) fn begin(
    dispatch: &Arc<Dispatch>,
    head: &mut Parts,
    incoming: Incoming,
    client: &Client,
    context: &mut Context<'_>,
    pending: &mut Option<PendingResponse>,
) -> Poll<Response<ResponseBody>> {
    // Both begin before any check, because a refused request also has a response to send and a body that
    // its client may still be sending.
    let guard = client.activity.begin_request();
    let body = dispatch.body(incoming, client);
    let mut scan = HeaderScan::of(head);
    let checked = target::check(head, &scan);
    if checked == HeadCheck::Normalize {
        target::normalize(head);
        scan = HeaderScan::again(head);
    }
    let record = dispatch.recorder.begin(head, &scan, client.peer);
    let mut request = PendingRequest {
        record,
        guard,
        body_limit: body.limit_state(),
        framing: Framing::of(head),
    };
    let mut body = Some(body);
    // The app writes into this response and hyper gets it, because a response is large to move.
    let mut response = Response::default();
    let entered = if let HeadCheck::Refuse(refusal) = checked {
        request.refused(refusal, head, None, &mut response)
    } else {
        request.enter(dispatch, head, &mut body, &mut response, client, context)
    };
    let future: PendingResponse = match entered {
        Entered::Answered => {
            request.respond(&mut response);
            return Poll::Ready(response);
        }
        Entered::Called(call, generation) => {
            Box::pin(request.wait_for_app(call, generation, response))
        }
        Entered::NotYet(door) => {
            // The app was not called, so that the head is still complete. The future has to own all that
            // it needs, because `head` belongs to the caller.
            let head = mem::replace(head, Request::new(()).into_parts().0);
            let (dispatch, client) = (Arc::clone(dispatch), client.clone());
            Box::pin(request.enter_later(dispatch, head, body, door, client))
        }
    };
    pending.insert(future).as_mut().poll(context)
}

/// A request that has no response yet.
#[derive(Debug)]
struct PendingRequest {
    /// The record of the request in the log and the access log.
    record: RequestRecord,
    /// Counts the request as in flight on its connection.
    guard: RequestGuard,
    /// Whether the request's body keeps its limits. None when the request has no body.
    body_limit: Option<BodyLimitState>,
    /// The properties of the request that the framing of the response depends on.
    framing: Framing,
}

/// How far a request has come after an attempt to enter its app.
enum Entered {
    /// The response is complete, but for its body.
    Answered,
    /// The app was called and polled once, and has no response yet.
    Called(Call, Arc<Generation>),
    /// The app admits no request for now.
    NotYet(Door),
}

impl PendingRequest {
    /// Finds the app and calls it. When the app was called, `body` is None and the header fields of
    /// `head` are gone: both belong to the app then.
    fn enter(
        &mut self,
        dispatch: &Dispatch,
        head: &mut Parts,
        body: &mut Option<RequestBody>,
        response: &mut Response<ResponseBody>,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Entered {
        let len = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if let Err(refusal) = dispatch.check_limits(head, len) {
            return self.refused(refusal, head, None, response);
        }
        let routes = dispatch.routes();
        let (route, generation, in_flight) = match dispatch::admit(&routes, head.uri.path()) {
            Admission::Admitted(route, generation, in_flight) => (route, generation, in_flight),
            Admission::NotYet(door) => return Entered::NotYet(door),
            Admission::Refused(refusal) => {
                return self.refused(refusal, head, Some(&routes), response);
            }
        };
        self.record.set_app(generation.name, generation.number);
        let id = self.record.id();
        let target = Target {
            mount: &route.mount,
            peer: Some(client.peer),
            request_id: id.as_ref().map(RequestId::as_bytes),
            upgrade: upgrade::take(head, &in_flight, &generation.abort, &client.activity),
        };
        // The scoreboard shows this thread in the app until `working` is dropped. The note is kept only if
        // code of the app runs again, because most requests need none.
        let (method, path) = (&head.method, head.uri.path());
        let id = id.as_ref().map_or(&[][..], RequestId::as_bytes);
        let working = scoreboard::enter_request(generation.label, id, method, path);
        let called = self
            .record
            .scope(|| in_flight.call(head, body.take(), target, context, response));
        if will_run_again(&called) {
            self.record.keep_note(working.note());
        }
        drop(working);
        match called {
            Called::Answered(called) => {
                self.finish(called, generation, response);
                Entered::Answered
            }
            Called::Pending(call) => Entered::Called(call, Arc::clone(generation)),
        }
    }

    /// Enters the app as soon as `door` opens, and waits for its response.
    async fn enter_later(
        mut self,
        dispatch: Arc<Dispatch>,
        mut head: Parts,
        mut body: Option<RequestBody>,
        mut door: Door,
        client: Client,
    ) -> Response<ResponseBody> {
        let mut response = Response::default();
        loop {
            // A door that opens promises nothing: the app may be gone, or closed again. But the routes
            // are replaced before a generation is closed, so that each turn looks at newer routes.
            door.opened().await;
            let entered = poll_fn(|context| {
                let response = &mut response;
                Poll::Ready(self.enter(&dispatch, &mut head, &mut body, response, &client, context))
            });
            match entered.await {
                Entered::Answered => {
                    self.respond(&mut response);
                    return response;
                }
                Entered::Called(call, generation) => {
                    return self.wait_for_app(call, generation, response).await;
                }
                Entered::NotYet(other) => door = other,
            }
        }
    }

    /// Waits for the response to a call that was polled just now.
    fn wait_for_app(
        mut self,
        call: Call,
        generation: Arc<Generation>,
        mut response: Response<ResponseBody>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        request::scoped(self.record.log(), async move {
            let note = self.record.note();
            match call::run(call, note, &generation.abort, &mut response).await {
                Some(called) => self.finish(called, &generation, &mut response),
                None => self.cut_off(&mut response),
            }
            self.respond(&mut response);
            response
        })
    }

    /// Completes `response` after the call of the app, which gave a body or failed.
    ///
    /// A request body that broke its limits counts more than the answer of the app, because the app saw
    /// only a part of the request.
    fn finish(
        &mut self,
        called: Result<AppBody, CallError>,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        if let Some(Err(refusal)) = self.body_limit.as_ref().map(BodyLimitState::app_answered) {
            return self.refuse(refusal, response);
        }
        match called {
            Ok(body) => self.frame(body, generation, response),
            Err(error) => self.failed(error, generation, response),
        }
    }

    /// Puts the app's body into the response, as far as the status and the request allow a body.
    fn frame(
        &mut self,
        body: AppBody,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        // An app that answers 5xx counts as failing during its probation.
        if response.status().is_server_error() {
            generation.faults.failed();
        }
        match self.framing.apply(response, || body.size_hint()) {
            Ok(BodyFraming::Body(length)) => {
                *response.body_mut() = ResponseBody::app(body, generation, length);
            }
            // Dropping a body runs code of the app, which logs as this request.
            Ok(BodyFraming::Nothing) => self.record.scope(|| drop(body)),
            Err(error) => {
                self.record.scope(|| drop(body));
                self.misframed(&error, generation, response);
            }
        }
    }

    /// Answers with 500 in place of a response that HTTP has no form for, and logs the error for the
    /// author of the app.
    #[cold]
    fn misframed(
        &mut self,
        error: &FramingError,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.failed();
        self.record.set_outcome(RequestOutcome::Failed);
        self.record.scope(|| {
            error!(
                plugin = generation.name,
                status = response.status().as_u16(),
                error = error as &dyn std::error::Error,
                "The app's response cannot be sent, its client gets a 500"
            );
        });
        self.refuse(Refusal::Failed, response);
    }

    /// Answers with 500 after a call that failed. A panic was logged where it happened.
    #[cold]
    fn failed(
        &mut self,
        error: CallError,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.failed();
        self.record.set_outcome(error.into());
        if error == CallError::Invalid {
            self.record.scope(|| {
                error!(
                    plugin = generation.name,
                    error = &error as &dyn std::error::Error,
                    "No response"
                );
            });
        }
        self.refuse(Refusal::Failed, response);
    }

    /// Answers with 503, because the generation's time to drain is over.
    fn cut_off(&mut self, response: &mut Response<ResponseBody>) {
        self.record.set_outcome(RequestOutcome::CutOff);
        self.refuse(Refusal::Unavailable, response);
    }

    /// Makes `response` the host's own answer.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, response: &mut Response<ResponseBody>) {
        self.record.set_outcome(refusal.outcome());
        refusal.answer(response);
    }

    /// Refuses a request that has not entered an app, and says why at debug level. `routes` are those in which no app
    /// was found.
    #[cold]
    fn refused(
        &mut self,
        refusal: Refusal,
        head: &Parts,
        routes: Option<&Routes>,
        response: &mut Response<ResponseBody>,
    ) -> Entered {
        self.record.scope(|| {
            let routes = routes.filter(|_| refusal == Refusal::NotFound);
            debug!(
                method = head.method.as_str(),
                path = head.uri.path(),
                status = refusal.status().as_u16(),
                mounts = routes.map(Routes::mounts),
                "No app answers the request: {refusal}"
            );
        });
        self.refuse(refusal, response);
        Entered::Answered
    }

    /// Completes the response for the connection, and attaches the rest of the request to its body.
    fn respond(self, response: &mut Response<ResponseBody>) {
        let Self {
            mut record,
            guard,
            framing,
            ..
        } = self;
        record.begin_response(response);
        if framing.is_http2() {
            fields::trim(response.headers_mut());
        }
        if framing.is_http2_head() {
            take_body_off(response);
        }
        response.body_mut().attach_request(guard, record);
    }
}

/// Whether code of the app will run for the request after the call: a poll of the call, or of the body.
fn will_run_again(called: &Called) -> bool {
    match called {
        Called::Answered(Ok(body)) => body.is_stream(),
        Called::Answered(Err(_)) => false,
        Called::Pending(_) => true,
    }
}

/// Makes a response to `HEAD` of one to `GET`. hyper does so for HTTP/1 only.
fn take_body_off(response: &mut Response<ResponseBody>) {
    // An empty body says nothing of its length: many apps leave the body out for a `HEAD`.
    if let Some(len @ 1..) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| len.into());
    }
    *response.body_mut() = ResponseBody::default();
}
