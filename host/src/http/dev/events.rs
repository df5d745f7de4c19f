//! The stream of server-sent events that tells pages the state of the session (HTML Standard, section
//! 9.2).

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

/// Returns the response that is the stream. The stream ends with the session.
pub(super) fn stream(
    state: watch::Receiver<Option<Arc<SessionState>>>,
    guard: RequestGuard,
) -> Response<ResponseBody> {
    let mut response = session_response(StatusCode::OK, "text/event-stream", Bytes::new());
    *response.body_mut() = ResponseBody::wrapper(EventStream {
        next: Box::pin(next(state, true)),
        _guard: guard,
    });
    response
}

/// The next bytes of the stream, and the receiver for the bytes after them. None at the end.
type Next = Option<(Bytes, watch::Receiver<Option<Arc<SessionState>>>)>;

/// The body of the stream.
struct EventStream {
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    /// Keeps the connection from being closed as idle.
    _guard: RequestGuard,
}

/// Waits for the next bytes. The first ones come at once.
async fn next(mut state: watch::Receiver<Option<Arc<SessionState>>>, is_first: bool) -> Next {
    if !is_first {
        match time::timeout(KEEP_ALIVE, state.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            // A comment, which browsers ignore. Sending it fails if the browser is gone.
            Err(_) => return Some((Bytes::from_static(b":\n\n"), state)),
        }
    }
    let now = state.borrow_and_update().clone();
    let event = now.as_deref().map_or_else(|| ":\n\n".to_owned(), event);
    Some((event.into(), state))
}

/// Returns the state as an event, without what pages need not know.
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
    format!("retry: 500\ndata: {data}\n\n")
}

impl Body for EventStream {
    type Data = OwnedBytes;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        // Each wait is a future of its own, which owns the receiver and gives it back.
        self.next.as_mut().poll(context).map(|next| {
            let (bytes, state) = next?;
            self.next = Box::pin(self::next(state, false));
            Some(Ok(Frame::data(bytes.into())))
        })
    }
}

/// How often something is sent at least, so that a browser that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
