//! What a development session adds to the server: pages that refresh themselves and show what does not
//! compile, and answers that say why a request failed.
//!
//! `host dev` starts the server with the variable [`SOCKET`]; without it there is no [`Dev`], and
//! requests pass by. The session's state comes over the socket (`feed`). A page gets a script of the
//! server's (`inject`, `csp`), which listens to server-sent events (`events`). A failure is
//! explained (`page`) by what the log knows of the request ([`recent`]). Whoever is not on this machine,
//! or is another site's page in a browser on it, is kept out (`guard`).

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
    /// What the process that started this one asks for, if it is a session.
    #[must_use]
    pub fn from_environment() -> Option<Arc<Self>> {
        let socket = env::var_os(SOCKET)?;
        recent::start();
        let state = feed::follow(socket.into());
        Some(Arc::new(Self { state }))
    }

    /// Answers a request, in the place of `dispatch`.
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
                "/_host/dev/client.js" => script(),
                "/_host/dev/events" => events::stream(dev.state.clone(), client.activity.request()),
                _ => {
                    dev.pass(&dispatch, head, body, &client, state.as_deref())
                        .await
                }
            }
        })
    }

    /// Has an app answer, and adds to the response.
    async fn pass(
        &self,
        dispatch: &Arc<Dispatch>,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        state: Option<&SessionState>,
    ) -> Response<ResponseBody> {
        let asked = page::Asked::of(&head);
        let may_see = guard::may_see_errors(&head);
        let is_refreshed = state.is_none_or(|state| state.options.refresh) && is_page(&head);
        if is_refreshed {
            readable(&mut head.headers);
        }
        let (mut body, mut wait) = (Some(body), None::<PendingResponse>);
        let mut response = poll_fn(|context| match (&mut wait, body.take()) {
            (Some(wait), _) => wait.as_mut().poll(context),
            (None, Some(body)) => {
                request::begin(dispatch, &mut head, body, client, context, &mut wait)
            }
            (None, None) => unreachable!("a response that was not ready is waited for"),
        })
        .await;
        if may_see && page::is_wanted(&response) {
            page::explain(&mut response, &asked, state);
        }
        if is_refreshed {
            inject::script(&mut response, &made(state));
        }
        response
    }
}

/// What identifies the version of the apps that answers now.
fn made(state: Option<&SessionState>) -> String {
    state.map_or_else(String::new, |state| {
        format!("{}.{}", state.session, state.swaps)
    })
}

/// Whether a request is a browser's for a page, not for a part of one. Browsers say so on this
/// machine and over TLS (Fetch Metadata Request Headers, section 2); others only by what they accept.
fn is_page(head: &Parts) -> bool {
    let is = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    head.method == Method::GET
        && is("range").is_none()
        && is("hx-request").is_none()
        && match is("sec-fetch-dest") {
            Some(wanted) => matches!(wanted, b"document" | b"iframe" | b"frame"),
            None => accepts(&head.headers, "text/html"),
        }
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(kind))
}

/// Asks the app for the whole page, in a compression that can be read here if it wants to compress.
fn readable(headers: &mut HeaderMap) {
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

/// The script that pages get.
fn script() -> Response<ResponseBody> {
    let mut response = own(
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

/// A response of the session's own, which is kept nowhere.
fn own(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
