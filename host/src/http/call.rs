//! Runs a call of an app whose response was not ready at the first poll.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    task::{Context, Poll, ready},
};

use http::Response;
use plugin_api::host::{Body as AppBody, Call, CallError};
use tokio_util::sync::CancellationToken;

use super::response_body::ResponseBody;
use crate::scoreboard::{self, SavedWork, WorkKind};

/// Runs a call to its end. Drops the call and returns `None` if `abort` is cancelled before.
///
/// `saved_work` is the request's entry for the scoreboard. The caller has polled `call` immediately before, with the
/// waker of the current task. The first poll of this future therefore only registers the waker with `abort`, and does
/// not poll the app again.
pub(super) async fn run(
    call: Call,
    saved_work: Option<&SavedWork>,
    abort: &CancellationToken,
    response: &mut Response<ResponseBody>,
) -> Option<Result<AppBody, CallError>> {
    let mut aborted = pin!(abort.cancelled());
    let mut was_polled = true;
    let mut call = ObservedCall {
        call: Some(call),
        saved_work,
    };
    // The call is polled before `aborted`, because a response that is ready is used even if the abort came at the
    // same time.
    poll_fn(|context| {
        if !mem::take(&mut was_polled)
            && let Poll::Ready(done) = call.poll(context, response)
        {
            return Poll::Ready(Some(done));
        }
        aborted.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// A call that the scoreboard shows while a thread polls or drops the call.
struct ObservedCall<'a> {
    /// `None` once the call is complete.
    call: Option<Call>,
    /// The request's entry for the scoreboard.
    saved_work: Option<&'a SavedWork>,
}

impl ObservedCall<'_> {
    /// Polls the app's future. Writes the status and the header fields to `response` when it is ready.
    ///
    /// # Panics
    ///
    /// When the call is polled again after it was ready.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Response<ResponseBody>,
    ) -> Poll<Result<AppBody, CallError>> {
        let Some(call) = &mut self.call else {
            panic!("a call was polled after it was ready");
        };
        let _working = scoreboard::enter_again(self.saved_work, WorkKind::Request);
        let done = ready!(call.poll_response(context, response));
        // A complete call has no future of the app any more. `drop` need not show it on the scoreboard.
        self.call = None;
        Poll::Ready(done)
    }
}

impl Drop for ObservedCall<'_> {
    fn drop(&mut self) {
        // The drop of a pending call runs code of the app, because it drops the app's future.
        if let Some(call) = self.call.take() {
            let _working = scoreboard::enter_again(self.saved_work, WorkKind::Drop);
            drop(call);
        }
    }
}
