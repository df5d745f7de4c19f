//! A request on its way to its response, whoever gives it.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Response, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use plugin_api::host::{Body as AppBody, Call, CallError};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    activity::RequestGuard,
    fields,
    framing::{Content, Framing, Misframed},
    refusal::Refusal,
    request_body::BodyLimitState,
    response_body::ResponseBody,
    trail::Trail,
};
use crate::{
    log::{access::Outcome, request},
    scoreboard::{self, Doing, Note},
    worker::generation::Generation,
};

/// A request on its way to its response.
#[derive(Debug)]
pub(super) struct Underway {
    /// What it leaves in the log.
    pub(super) trail: Trail,
    answering: RequestGuard,
    body: Option<BodyLimitState>,
    framing: Framing,
}

impl Underway {
    /// A request that has just come.
    pub(super) fn new(
        head: &Parts,
        trail: Trail,
        answering: RequestGuard,
        body: Option<BodyLimitState>,
    ) -> Self {
        Self {
            trail,
            answering,
            body,
            framing: Framing::of(head),
        }
    }

    /// Waits for a call that was polled just now.
    pub(super) fn wait(
        mut self,
        call: Call,
        generation: Arc<Generation>,
        mut response: Response<ResponseBody>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        request::scoped(self.trail.log(), async move {
            let note = self.trail.note();
            match until_cut(call, note, &generation.cut, &mut response).await {
                Some(called) => self.answered(called, &generation, &mut response),
                None => self.cut_off(&mut response),
            }
            self.respond(&mut response);
            response
        })
    }

    /// The app gave a response, or there is a reason why there is none.
    pub(super) fn answered(
        &mut self,
        called: Result<AppBody, CallError>,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        if let Some(Err(refusal)) = self.body.as_ref().map(BodyLimitState::answered) {
            return self.refusal(refusal, response);
        }
        match called {
            Ok(body) => self.frame(body, generation, response),
            Err(error) => self.failed(error, generation, response),
        }
    }

    /// The app's body goes with its response, as far as its head tells the truth of it.
    fn frame(
        &mut self,
        body: AppBody,
        generation: &Arc<Generation>,
        response: &mut Response<ResponseBody>,
    ) {
        if response.status().is_server_error() {
            generation.faults.failed();
        }
        match self.framing.content(response, || body.size_hint()) {
            Ok(Content::Body(length)) => {
                *response.body_mut() = ResponseBody::app(body, generation, length);
            }
            Ok(Content::Nothing) => self.trail.scope(|| drop(body)),
            Err(error) => {
                self.trail.scope(|| drop(body));
                self.misframed(&error, generation, response);
            }
        }
    }

    /// The app's response is none that HTTP has a form for: its author hears of it, its client gets
    /// a 500.
    #[cold]
    fn misframed(
        &mut self,
        error: &Misframed,
        generation: &Generation,
        response: &mut Response<ResponseBody>,
    ) {
        generation.faults.failed();
        self.trail.end(Outcome::Failed);
        self.trail.scope(|| {
            error!(
                plugin = generation.name,
                status = response.status().as_u16(),
                error = error as &dyn std::error::Error,
                "The app's response cannot be sent, its client gets a 500"
            );
        });
        self.refusal(Refusal::Failed, response);
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

    /// The host answers in place of an app.
    #[cold]
    pub(super) fn refusal(&mut self, refusal: Refusal, response: &mut Response<ResponseBody>) {
        self.trail.end(refusal.outcome());
        refusal.answer(response);
    }

    /// The response is there, and goes to the connection.
    pub(super) fn respond(self, response: &mut Response<ResponseBody>) {
        let Self {
            mut trail,
            answering,
            framing,
            ..
        } = self;
        trail.respond(response);
        if framing.is_http2() {
            fields::trim(response.headers_mut());
        }
        if framing.is_http2_head() {
            without_body(response);
        }
        response.body_mut().until_sent(answering, trail);
    }
}

/// Awaits a call that was polled just now, or drops it when `cut` is cancelled.
async fn until_cut(
    call: Call,
    note: Option<&Note>,
    cut: &CancellationToken,
    response: &mut Response<ResponseBody>,
) -> Option<Result<AppBody, CallError>> {
    let mut cut = pin!(cut.cancelled());
    let mut polled = true;
    let mut call = InApp {
        call: Some(call),
        note,
    };
    poll_fn(|context| {
        if !mem::take(&mut polled)
            && let Poll::Ready(done) = call.poll(context, response)
        {
            return Poll::Ready(Some(done));
        }
        cut.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// A call of an app, whose threads note that they are in the app.
struct InApp<'a> {
    /// Some until it is ready.
    call: Option<Call>,
    note: Option<&'a Note>,
}

impl InApp<'_> {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Response<ResponseBody>,
    ) -> Poll<Result<AppBody, CallError>> {
        let Some(call) = &mut self.call else {
            panic!("a call was polled after it was ready");
        };
        let _working = scoreboard::enter_again(self.note, Doing::Request);
        let done = ready!(call.poll_response(context, response));
        // Nothing of the app's is left to be dropped.
        self.call = None;
        Poll::Ready(done)
    }
}

impl Drop for InApp<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let _working = scoreboard::enter_again(self.note, Doing::Drop);
            drop(call);
        }
    }
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
