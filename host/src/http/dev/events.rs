//! The stream of server-sent events that sends the state of the session to pages (HTML Standard, section 9.2).

use std::{pin::Pin, sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use plugin_api::abi::OwnedBytes;
use serde_json::json;
use tokio::{sync::watch, time};

use super::session_response;
use crate::{
    dev::state::SessionState,
    http::{
        activity::RequestGuard,
        response_body::{FramePoll, ResponseBody, ResponseBodyError},
    },
};

/// Returns a response whose body is the stream. The stream ends when the session ends.
pub(super) fn stream(
    state: watch::Receiver<Option<Arc<SessionState>>>,
    guard: RequestGuard,
) -> Response<ResponseBody> {
    let mut response = session_response(StatusCode::OK, "text/event-stream", Bytes::new());
    *response.body_mut() = ResponseBody::of_dev_layer(EventStream {
        next: Box::pin(next_bytes(state, true)),
        _guard: guard,
    });
    response
}

/// The next bytes of the stream, and the receiver to wait for later states. `None` at the end of the stream.
type NextBytes = Option<(Bytes, watch::Receiver<Option<Arc<SessionState>>>)>;

/// The body of the stream.
struct EventStream {
    /// Waits for the next bytes.
    next: Pin<Box<dyn Future<Output = NextBytes> + Send>>,
    /// Counts the request as in flight, because an idle connection would be closed.
    _guard: RequestGuard,
}

/// Waits for a change of the state or for the next keep-alive comment, and returns the bytes for it. Returns the first
/// bytes at once.
async fn next_bytes(
    mut state: watch::Receiver<Option<Arc<SessionState>>>,
    is_first: bool,
) -> NextBytes {
    if !is_first {
        match time::timeout(KEEP_ALIVE, state.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            // A comment, which browsers ignore. The write of the comment fails if the browser has left.
            Err(_) => return Some((Bytes::from_static(b":\n\n"), state)),
        }
    }
    // A comment replaces a state that is not known yet.
    let current = state.borrow_and_update().clone();
    let event = current.as_deref().map_or_else(|| ":\n\n".to_owned(), event);
    Some((event.into(), state))
}

/// Returns the state as an event. The event has only the fields that the script uses.
fn event(state: &SessionState) -> String {
    let SessionState {
        session,
        swaps,
        phase,
        progress,
        report,
        assets,
        ..
    } = state;
    let data = json!({
        "session": session, "swaps": swaps, "phase": phase, "progress": progress,
        "report": report, "assets": assets,
    });
    // A browser whose stream has ended tries again after 500 ms.
    format!("retry: 500\ndata: {data}\n\n")
}

impl Body for EventStream {
    type Data = OwnedBytes;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        // Each wait is a new future. The future owns the receiver, and returns it for the next one.
        self.next.as_mut().poll(context).map(|next| {
            let (bytes, state) = next?;
            self.next = Box::pin(next_bytes(state, false));
            Some(Ok(Frame::data(bytes.into())))
        })
    }
}

/// The longest time without an event or a comment. A write is needed to detect that a browser has left.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
