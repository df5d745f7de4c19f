//! The part of the server for a development session: pages that refresh themselves and show compiler errors,
//! and answers that say why a request failed.
//!
//! `host dev` starts the server with the variable [`SOCKET`]. Without that variable there is no [`Dev`], and
//! requests take the usual way. The state of the session comes over the socket (`feed`). Pages get a
//! script (`inject`, `csp`), which listens to server-sent events (`events`). A failure is explained
//! (`page`) by the log lines and the panic of the request ([`recent`]). Requests that pages of other sites
//! have caused are refused (`guard`).

mod csp;
mod events;
mod feed;
mod guard;
mod inject;
mod page;

use std::{env, future::poll_fn, mem, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    },
    request::Parts,
};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    dispatch::{Client, Dispatch},
    request::{self, PendingResponse},
    response_body::ResponseBody,
};
use crate::{
    dev::{server::SOCKET, state::SessionState},
    log::recent,
};

/// The part of a server that serves a development session.
#[derive(Debug)]
pub struct Dev {
    state: watch::Receiver<Option<Arc<SessionState>>>,
}

impl Dev {
    /// Starts the session's part of the server, if a session has started this process. Returns None
    /// otherwise.
    #[must_use]
    pub fn from_environment() -> Option<Arc<Self>> {
        let socket = env::var_os(SOCKET)?;
        recent::start();
        let state = feed::follow(socket.into());
        Some(Arc::new(Self { state }))
    }

    /// Returns the future that answers a request, in place of [`request::begin`].
    pub(super) fn answer(
        self: &Arc<Self>,
        dispatch: &Arc<Dispatch>,
        head: &mut Parts,
        body: Incoming,
        client: &Client,
    ) -> PendingResponse {
        let head = mem::replace(head, Request::new(()).into_parts().0);
        let (dev, dispatch, client) = (Arc::clone(self), Arc::clone(dispatch), client.clone());
        Box::pin(async move {
            let state = dev.state.borrow().clone();
            if let Some(refused) = guard::refusal(&head, state.as_deref()) {
                return refused;
            }
            match head.uri.path() {
                "/_host/dev/client.js" => client_script(),
                "/_host/dev/events" => {
                    events::stream(dev.state.clone(), client.activity.begin_request())
                }
                _ => {
                    dev.forward(&dispatch, head, body, &client, state.as_deref())
                        .await
                }
            }
        })
    }

    /// Lets the app answer, and adds to the response.
    async fn forward(
        &self,
        dispatch: &Arc<Dispatch>,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        state: Option<&SessionState>,
    ) -> Response<ResponseBody> {
        let shown = page::ShownRequest::of(&head);
        let may_see = guard::may_see_errors(&head);
        let is_refreshed = state.is_none_or(|state| state.options.refresh) && is_page(&head);
        if is_refreshed {
            ask_for_readable_page(&mut head.headers);
        }
        let (mut body, mut pending) = (Some(body), None::<PendingResponse>);
        let mut response = poll_fn(|context| match (&mut pending, body.take()) {
            (Some(pending), _) => pending.as_mut().poll(context),
            (None, Some(body)) => {
                request::begin(dispatch, &mut head, body, client, context, &mut pending)
            }
            (None, None) => unreachable!("a response that was not ready is waited for"),
        })
        .await;
        // First the explanation, because it is a page too and gets the script like any other.
        if may_see && page::needs_explanation(&response) {
            page::explain(&mut response, &shown, state);
        }
        if is_refreshed {
            inject::add_script(&mut response, &version_of(state));
        }
        response
    }
}

/// Returns what identifies the version of the apps that answers now. The script of a page compares it with
/// the version that the session announces later.
fn version_of(state: Option<&SessionState>) -> String {
    state.map_or_else(String::new, |state| {
        format!("{}.{}", state.session, state.swaps)
    })
}

/// Whether a browser asks for a page, not for a part of one.
///
/// Browsers tell that by `sec-fetch-dest`, but only to servers on the same machine or over TLS (Fetch
/// Metadata Request Headers, section 2). Otherwise `accept` has to tell.
fn is_page(head: &Parts) -> bool {
    let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    head.method == Method::GET
        && header("range").is_none()
        && header("hx-request").is_none()
        && match header("sec-fetch-dest") {
            Some(wanted) => matches!(wanted, b"document" | b"iframe" | b"frame"),
            None => accepts(&head.headers, "text/html"),
        }
}

/// Whether the client accepts a content type that contains `kind`.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(kind))
}

/// Changes a request so that the app answers with a whole page, without compression or with gzip, which
/// `inject` can read.
fn ask_for_readable_page(headers: &mut HeaderMap) {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter();
    let has_gzip = accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("gzip"));
    for header in [ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH] {
        headers.remove(header);
    }
    if has_gzip {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
}

/// Returns the response that is the script of pages.
fn client_script() -> Response<ResponseBody> {
    let mut response = session_response(
        StatusCode::OK,
        "text/javascript; charset=utf-8",
        include_str!("dev/client.js"),
    );
    let headers = response.headers_mut();
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Returns a response of the session's own, which no cache keeps.
fn session_response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
