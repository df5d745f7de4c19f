//! The call of an app that did not answer when it was first polled.

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
use crate::scoreboard::{self, WorkKind, WorkNote};

/// Runs a call to its end. Returns None when `abort` was cancelled before; the call is dropped then.
///
/// The caller has polled `call` just now, with the waker of the current task. So the first poll of this
/// future only registers with `abort`, and does not run the app again.
pub(super) async fn run(
    call: Call,
    note: Option<&WorkNote>,
    abort: &CancellationToken,
    response: &mut Response<ResponseBody>,
) -> Option<Result<AppBody, CallError>> {
    let mut aborted = pin!(abort.cancelled());
    let mut was_polled = true;
    let mut call = ObservedCall {
        call: Some(call),
        note,
    };
    // The call is polled before `aborted`: a response that is ready counts, even if the abort came in the
    // same moment.
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

/// A call that shows on the scoreboard while a thread polls or drops it.
struct ObservedCall<'a> {
    /// None once the call is complete.
    call: Option<Call>,
    /// The request's entry for the scoreboard.
    note: Option<&'a WorkNote>,
}

impl ObservedCall<'_> {
    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Response<ResponseBody>,
    ) -> Poll<Result<AppBody, CallError>> {
        let Some(call) = &mut self.call else {
            panic!("a call was polled after it was ready");
        };
        let _working = scoreboard::enter_again(self.note, WorkKind::Request);
        let done = ready!(call.poll_response(context, response));
        // A complete call has nothing of the app's left to drop, so `drop` need not show it.
        self.call = None;
        Poll::Ready(done)
    }
}

impl Drop for ObservedCall<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let _working = scoreboard::enter_again(self.note, WorkKind::Drop);
            drop(call);
        }
    }
}
