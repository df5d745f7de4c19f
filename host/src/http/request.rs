//! Answers one request: from its head to the response that hyper sends.
//!
//! [`begin`] creates a [`PendingRequest`] from the head, finds the app ([`dispatch`](super::dispatch)) and calls the
//! app. Most apps have their response ready at once: `begin` then returns the response and allocates no memory.
//! Otherwise a boxed future does the rest. The future waits for the response of the app, or, if the app does not admit
//! requests now, waits for the app first.
//!
//! Every response passes through [`PendingRequest::complete_response`], which attaches the request's record to the
//! body of the response. The request ends when hyper drops that body.

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
use plugin_api::host::{Body as AppBody, Call, CallError, CallInfo, CallResult};
use tracing::{debug, error};

use super::{
    activity::RequestGuard,
    call,
    dispatch::{self, Admission, AdmissionWait, Client, Dispatch},
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
    apps::{generation::Generation, registry::Routes},
    log::{access::RequestOutcome, request, request_id::RequestId},
    scoreboard,
};

/// The future of a response that is not ready at once.
pub(super) type PendingResponse = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// Begins to answer a request.
///
/// Returns the response if it is ready at once. Otherwise the function sets `pending` to the future of the response,
/// and polls that future once with `context`. The caller has to poll `pending` from then on.
pub(super) fn begin(
    dispatch: &Arc<Dispatch>,
    head: &mut Parts,
    incoming: Incoming,
    client: &Client,
    context: &mut Context<'_>,
    pending: &mut Option<PendingResponse>,
) -> Poll<Response<ResponseBody>> {
    // The guard and the body are created before any check, because a refused request also has a response to send, and
    // a body that its client may still be sending.
    let guard = client.activity.begin_request();
    let body = dispatch.body(incoming, client);
    // If `normalize` changes header fields, a second scan replaces this scan.
    let mut scan = HeaderScan::of(head);
    let checked = target::check(head, &scan);
    if checked == HeadCheck::Normalize {
        target::normalize(head);
        scan = HeaderScan::rescan(head);
    }
    let record = dispatch.recorder.begin(head, &scan, client.peer);
    let mut request = PendingRequest {
        record,
        guard,
        body_limit: body.limit_state(),
        framing: Framing::of(head),
    };
    let mut body = Some(body);
    // The app writes to this response by reference, because a response is large (200 bytes) and costly to move.
    let mut response = Response::default();
    let result = if let HeadCheck::Refuse(refusal) = checked {
        request.refuse_before_app(refusal, head, None, &mut response)
    } else {
        request.enter(dispatch, head, &mut body, &mut response, client, context)
    };
    let future: PendingResponse = match result {
        EnterResult::Ready => {
            request.complete_response(&mut response);
            return Poll::Ready(response);
        }
        EnterResult::Pending(call, generation) => {
            Box::pin(request.wait_for_app(call, generation, response))
        }
        EnterResult::NotYet(wait) => {
            // The head is still complete, because the app was not called. The future needs an owned head, because the
            // function only borrows it.
            let head = mem::replace(head, Request::new(()).into_parts().0);
            let (dispatch, client) = (Arc::clone(dispatch), client.clone());
            Box::pin(request.enter_later(dispatch, head, body, wait, client))
        }
    };
    // The first poll registers the waker of the task for the events that the future waits for.
    pending.insert(future).as_mut().poll(context)
}

/// A request that has no response yet.
#[derive(Debug)]
struct PendingRequest {
    /// The record of the request for the log and the access log.
    record: RequestRecord,
    /// Counts the request as in flight on its connection.
    guard: RequestGuard,
    /// Whether the request's body is within its limits. `None` if the request has no body.
    body_limit: Option<BodyLimitState>,
    /// The properties of the request on which the framing of the response depends.
    framing: Framing,
}

/// The result of [`PendingRequest::enter`].
enum EnterResult {
    /// The response is ready. [`PendingRequest::complete_response`] has to be called.
    Ready,
    /// The app was called and polled once, and its response is not ready.
    Pending(Call, Arc<Generation>),
    /// The app admits no request now. The app was not called.
    NotYet(AdmissionWait),
}

impl PendingRequest {
    /// Finds the app and calls it. A call moves `body` and the header fields of `head` out: `body` is `None` and
    /// `head` has no header fields afterwards.
    fn enter(
        &mut self,
        dispatch: &Dispatch,
        head: &mut Parts,
        body: &mut Option<RequestBody>,
        response: &mut Response<ResponseBody>,
        client: &Client,
        context: &mut Context<'_>,
    ) -> EnterResult {
        let body_len = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if let Err(refusal) = dispatch.check_limits(head, body_len) {
            return self.refuse_before_app(refusal, head, None, response);
        }
        let routes = dispatch.routes();
        let (route, generation, in_flight) = match dispatch::admit(&routes, head.uri.path()) {
            Admission::Admitted(route, generation, in_flight) => (route, generation, in_flight),
            Admission::NotYet(wait) => return EnterResult::NotYet(wait),
            Admission::Refused(refusal) => {
                return self.refuse_before_app(refusal, head, Some(&routes), response);
            }
        };
        self.record.set_app(generation.name, generation.number);
        let id = self.record.id();
        let info = CallInfo {
            mount: &route.mount,
            peer: Some(client.peer),
            request_id: id.as_ref().map(RequestId::as_bytes),
            upgrade: upgrade::take_stream(head, &in_flight, &generation.abort, &client.activity),
        };
        // The scoreboard shows this thread in the app until `working` is dropped. The entry is copied only if code of
        // the app will run again for the request, because most requests do not need the copy.
        let (method, path) = (&head.method, head.uri.path());
        let id = id.as_ref().map_or(&[][..], RequestId::as_bytes);
        let working = scoreboard::enter_request(generation.label, id, method, path);
        let called = self
            .record
            .scope(|| in_flight.call(head, body.take(), info, context, response));
        if will_app_run_again(&called) {
            self.record.set_saved_work(working.save());
        }
        drop(working);
        match called {
            CallResult::Answered(called) => {
                self.finish(called, generation, response);
                EnterResult::Ready
            }
            CallResult::Pending(call) => EnterResult::Pending(call, Arc::clone(generation)),
        }
    }

    /// Waits until the app may admit the request, enters the app, and waits for its response.
    async fn enter_later(
        mut self,
        dispatch: Arc<Dispatch>,
        mut head: Parts,
        mut body: Option<RequestBody>,
        mut wait: AdmissionWait,
        client: Client,
    ) -> Response<ResponseBody> {
        let mut response = Response::default();
        loop {
            // After the wait the app may still not admit the request, because the app may have been removed or closed.
            // Each attempt reads the routes again: they are replaced before a generation is closed, so an attempt after
            // a close finds newer routes.
            wait.wait().await;
            // `poll_fn` only provides the context of the task: the closure is ready at once.
            let entering = poll_fn(|context| {
                let response = &mut response;
                Poll::Ready(self.enter(&dispatch, &mut head, &mut body, response, &client, context))
            });
            match entering.await {
                EnterResult::Ready => {
                    self.complete_response(&mut response);
                    return response;
                }
                EnterResult::Pending(call, generation) => {
                    return self.wait_for_app(call, generation, response).await;
                }
                EnterResult::NotYet(next) => wait = next,
            }
        }
    }

    /// Waits for the response to a call that was polled immediately before.
    fn wait_for_app(
        mut self,
        call: Call,
        generation: Arc<Generation>,
        mut response: Response<ResponseBody>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        request::scoped(self.record.log(), async move {
            let saved_work = self.record.saved_work();
            match call::run(call, saved_work, &generation.abort, &mut response).await {
                Some(called) => self.finish(called, &generation, &mut response),
                None => self.respond_aborted(&mut response),
            }
            self.complete_response(&mut response);
            response
        })
    }

    /// Writes the result of the call to `response`.
    ///
    /// If the request's body exceeded a limit, the response is a refusal and the result of the app is discarded,
    /// because the app got only a part of the request.
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
            Ok(body) => self.set_body(body, generation, response),
            Err(error) => self.respond_call_failed(error, generation, response),
        }
    }

    /// Moves the app's body into the response, if the status and the request allow a body.
    fn set_body(
        &mut self,
        body: AppBody,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        // A response with status 5xx counts as a fault, because a probation compares the faults of the new and the old
        // generation.
        if response.status().is_server_error() {
            generation.faults.count_error();
        }
        match self.framing.apply(response, || body.size_hint()) {
            Ok(BodyFraming::Body(length)) => {
                *response.body_mut() = ResponseBody::of_app(body, generation, length);
            }
            // In a scope, because the drop of a body runs code of the app, whose log lines belong to this request.
            Ok(BodyFraming::NoBody) => self.record.scope(|| drop(body)),
            Err(error) => {
                self.record.scope(|| drop(body));
                self.respond_misframed(&error, generation, response);
            }
        }
    }

    /// Answers with 500, because the app's response cannot be sent as HTTP. Logs the error for the author of the app.
    #[cold]
    fn respond_misframed(
        &mut self,
        error: &FramingError,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.count_error();
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

    /// Answers with 500, because the call failed. A panic is not logged here, because the plugin has logged it.
    #[cold]
    fn respond_call_failed(
        &mut self,
        error: CallError,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.count_error();
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

    /// Answers with 503, because the generation was aborted: its time to drain is over.
    fn respond_aborted(&mut self, response: &mut Response<ResponseBody>) {
        self.record.set_outcome(RequestOutcome::Aborted);
        self.refuse(Refusal::Unavailable, response);
    }

    /// Replaces `response` by the host's own response.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, response: &mut Response<ResponseBody>) {
        self.record.set_outcome(refusal.outcome());
        refusal.write_to(response);
    }

    /// Refuses a request before it has entered an app, and logs the reason at debug level. `routes` are the routes that
    /// were searched for the app, if any were.
    #[cold]
    fn refuse_before_app(
        &mut self,
        refusal: Refusal,
        head: &Parts,
        routes: Option<&Routes>,
        response: &mut Response<ResponseBody>,
    ) -> EnterResult {
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
        EnterResult::Ready
    }

    /// Completes the response for the protocol of the connection, and attaches the request's guard and record to the
    /// body.
    fn complete_response(self, response: &mut Response<ResponseBody>) {
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
            remove_body_of_head(response);
        }
        response.body_mut().attach_request(guard, record);
    }
}

/// Returns whether code of the app will run again for the request: in a poll of the call, or of the body.
fn will_app_run_again(called: &CallResult) -> bool {
    match called {
        CallResult::Answered(Ok(body)) => body.is_stream(),
        CallResult::Answered(Err(_)) => false,
        CallResult::Pending(_) => true,
    }
}

/// Removes the body from the response to a `HEAD` request over HTTP/2. hyper does that only over HTTP/1.
fn remove_body_of_head(response: &mut Response<ResponseBody>) {
    // The length of an empty body is not announced, because many apps create no body for a `HEAD`.
    if let Some(len @ 1..) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| len.into());
    }
    *response.body_mut() = ResponseBody::default();
}
