//! The layer for a development session: pages refresh themselves and show compiler errors, and responses explain why a
//! request failed.
//!
//! `host dev` starts the server with the environment variable [`SOCKET_VARIABLE`]. Without that variable the
//! server has no [`DevLayer`]. The modules:
//!
//! - `feed` receives the state of the session over the socket.
//! - `inject` and `csp` add a script to pages. The script listens to the server-sent events of `events`.
//! - `page` explains a failure with the log lines and the panic of the request ([`recent`]).
//! - `guard` refuses requests that pages of other sites have caused.

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
    dev::{server::SOCKET_VARIABLE, state::SessionState},
    log::recent,
};

/// The layer of a server for a development session.
#[derive(Debug)]
pub struct DevLayer {
    /// The state of the session. `None` until the first state was received.
    state: watch::Receiver<Option<Arc<SessionState>>>,
}

impl DevLayer {
    /// Starts the layer if the environment has the variable [`SOCKET_VARIABLE`]. Otherwise returns `None`.
    #[must_use]
    pub fn from_environment() -> Option<Arc<Self>> {
        let socket = env::var_os(SOCKET_VARIABLE)?;
        recent::start();
        let state = feed::receive(socket.into());
        Some(Arc::new(Self { state }))
    }

    /// Returns the future that answers a request. Used in place of [`request::begin`].
    pub(super) fn respond(
        self: &Arc<Self>,
        dispatch: &Arc<Dispatch>,
        head: &mut Parts,
        body: Incoming,
        client: &Client,
    ) -> PendingResponse {
        let head = mem::replace(head, Request::new(()).into_parts().0);
        let (layer, dispatch, client) = (Arc::clone(self), Arc::clone(dispatch), client.clone());
        Box::pin(async move {
            let state = layer.state.borrow().clone();
            if let Some(refusal) = guard::refusal(&head, state.as_deref()) {
                return refusal;
            }
            match head.uri.path() {
                "/_host/dev/client.js" => client_script(),
                "/_host/dev/events" => {
                    events::stream(layer.state.clone(), client.activity.begin_request())
                }
                _ => {
                    layer
                        .forward(&dispatch, head, body, &client, state.as_deref())
                        .await
                }
            }
        })
    }

    /// Returns the response of the app. Replaces a failure by an explanation, and adds the script to a page.
    async fn forward(
        &self,
        dispatch: &Arc<Dispatch>,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        state: Option<&SessionState>,
    ) -> Response<ResponseBody> {
        // Copied before the call, because the call moves the header fields out of `head`.
        let summary = page::RequestSummary::of(&head);
        let may_see_errors = guard::may_see_errors(&head);
        // Pages also get the script while the state of the session is not known yet.
        let gets_script = state.is_none_or(|state| state.options.refresh) && is_page(&head);
        if gets_script {
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
        // The explanation before the script, because an explanation may be a page, which also gets the script.
        if may_see_errors && page::needs_explanation(&response) {
            page::explain(&mut response, &summary, state);
        }
        if gets_script {
            inject::add_script(&mut response, &apps_version(state));
        }
        response
    }
}

/// Returns an identifier of the code that serves in `state`. The script of a page compares the identifier with those of
/// later states.
fn apps_version(state: Option<&SessionState>) -> String {
    state.map_or_else(String::new, |state| {
        format!("{}.{}", state.session, state.swaps)
    })
}

/// Returns whether a browser requests a page, not a part of a page.
///
/// Browsers send `sec-fetch-dest`, but only to servers on the same machine or over TLS (Fetch Metadata Request Headers,
/// section 2). Without that field the result depends on `accept`.
fn is_page(head: &Parts) -> bool {
    let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    head.method == Method::GET
        // A range or a fragment for htmx is a part of a page.
        && header("range").is_none()
        && header("hx-request").is_none()
        && match header("sec-fetch-dest") {
            Some(destination) => matches!(destination, b"document" | b"iframe" | b"frame"),
            None => accepts(&head.headers, "text/html"),
        }
}

/// Returns whether the client accepts a content type that contains `part`.
fn accepts(headers: &HeaderMap, part: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(part))
}

/// Changes the header fields of a request, because `inject` needs a complete page that is not compressed, or compressed
/// with gzip. Without the removed fields the app does not respond with a 304 or another compression.
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

/// Returns a response with the script for pages.
fn client_script() -> Response<ResponseBody> {
    let mut response = session_response(
        StatusCode::OK,
        "text/javascript; charset=utf-8",
        include_str!("dev/client.js"),
    );
    let headers = response.headers_mut();
    // A page of another site must not load the script.
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Returns a response of the session itself. Caches must not store it.
fn session_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::of_host(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
