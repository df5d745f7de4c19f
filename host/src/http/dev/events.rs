//! The stream of server-sent events by which pages hear of the session (HTML Standard, section 9.2).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use plugin_api::abi::OwnedBytes;
use serde_json::json;
use tokio::{sync::watch, time};

use super::own;
use crate::{
    dev::state::SessionState,
    http::{
        activity::RequestGuard,
        response_body::{Broken, ResponseBody},
    },
};

/// The stream. It ends with the session.
pub(super) fn stream(
    state: watch::Receiver<Option<Arc<SessionState>>>,
    answering: RequestGuard,
) -> Response<ResponseBody> {
    let mut response = own(StatusCode::OK, "text/event-stream", Bytes::new());
    *response.body_mut() = ResponseBody::changed(Events {
        next: Box::pin(next(state, true)),
        _answering: answering,
    });
    response
}

/// What comes next, and how to wait for what follows; none at the end.
type Next = Option<(Bytes, watch::Receiver<Option<Arc<SessionState>>>)>;

struct Events {
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    /// The connection is not idle for as long as this is there.
    _answering: RequestGuard,
}

async fn next(mut state: watch::Receiver<Option<Arc<SessionState>>>, is_first: bool) -> Next {
    if !is_first {
        match time::timeout(ALIVE, state.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            // Finds out whether the browser is still there.
            Err(_) => return Some((Bytes::from_static(b":\n\n"), state)),
        }
    }
    let now = state.borrow_and_update().clone();
    let event = now.as_deref().map_or_else(|| ":\n\n".to_owned(), event);
    Some((event.into(), state))
}

/// The state as an event. What pages need not know is left out.
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

impl Body for Events {
    type Data = OwnedBytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        self.next.as_mut().poll(context).map(|next| {
            let (bytes, state) = next?;
            self.next = Box::pin(self::next(state, false));
            Some(Ok(Frame::data(bytes.into())))
        })
    }
}

/// How often something is sent, so that a browser that is gone is found out.
const ALIVE: Duration = Duration::from_secs(15);
