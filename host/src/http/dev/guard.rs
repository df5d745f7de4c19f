//! Refuses requests that a page of another site has caused.
//!
//! A page of another site can make a browser on this machine send requests to this server. There are two attacks:
//!
//! - With DNS rebinding, the name of the site resolves to this machine, and the browser lets the page read the
//!   responses. The `Host` of such a request is the site.
//! - Without DNS rebinding, the page can still open the stream of events, or read errors that show source code
//!   (CVE-2025-24010). The `Origin` of such a request is the site, or `Sec-Fetch-Site` reports another site.

use std::net::IpAddr;

use http::{
    HeaderMap, Response, StatusCode,
    header::{HOST, ORIGIN},
    request::Parts,
};

use super::session_response;
use crate::{dev::state::SessionState, http::response_body::ResponseBody};

/// Returns the response to a request that has to be refused, or `None` if the request is allowed.
pub(super) fn refusal(
    head: &Parts,
    state: Option<&SessionState>,
) -> Option<Response<ResponseBody>> {
    let host = host_of(head).unwrap_or_default();
    let name = name_of(&host);
    let allowed = state.map_or(&[][..], |state| &state.options.hosts);
    if !is_local(name)
        && !allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
    {
        let text = format!(
            "this server of `host dev` does not answer for the host {name:?}: use localhost or an address, or start it with --allow-host {name}\n"
        );
        return Some(session_response(
            StatusCode::FORBIDDEN,
            "text/plain; charset=utf-8",
            text,
        ));
    }
    // The session's own paths show errors and source code. For all other paths the app decides who may read them.
    if head.uri.path().starts_with("/_host/") && !is_same_site(&head.headers, &host) {
        let text = "a page of another site may not see this\n";
        return Some(session_response(
            StatusCode::FORBIDDEN,
            "text/plain; charset=utf-8",
            text,
        ));
    }
    None
}

/// Returns whether the client may see why a request failed: the request was not caused by a page of another site.
pub(super) fn may_see_errors(head: &Parts) -> bool {
    is_same_site(&head.headers, &host_of(head).unwrap_or_default())
}

/// Returns whether neither `origin` nor `sec-fetch-site` reports another site than `host`. A missing field reports no
/// other site.
fn is_same_site(headers: &HeaderMap, host: &str) -> bool {
    // A value that is not text becomes `?`, which is never equal to `host`.
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_own = |origin: &str| {
        origin
            .split_once("://")
            .is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
    };
    text(ORIGIN.as_str()).is_none_or(is_own)
        && text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"))
}

/// Returns the host of a request: the authority of the target, as in HTTP/2, or the `host` field, as in HTTP/1.
fn host_of(head: &Parts) -> Option<String> {
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    authority.or_else(|| Some(head.headers.get(HOST)?.to_str().ok()?.to_owned()))
}

/// Returns the name in `name:port`, or the address in `[address]:port`.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Returns whether DNS rebinding is impossible for a name: an address is not resolved, and `localhost` and its
/// subdomains always mean this machine (RFC 6761, section 6.3).
fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_refused(path: &str, headers: &[(&str, &str)], allowed: &[&str]) -> bool {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let mut state = SessionState::default();
        state.options.hosts = allowed.iter().map(|&name| name.to_owned()).collect();
        refusal(&head, Some(&state)).is_some()
    }

    #[test]
    fn a_host_is_an_address_or_this_machine() {
        for host in [
            "localhost:8000",
            "LOCALHOST",
            "shop.localhost:80",
            "127.0.0.1:8000",
            "[::1]:8000",
            "10.0.0.7",
        ] {
            assert!(!is_refused("/", &[("host", host)], &[]), "{host}");
        }
        for host in [
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(is_refused("/", &[("host", host)], &[]), "{host}");
        }
        assert!(!is_refused("/", &[("host", "box.lan:8000")], &["box.lan"]));
    }

    #[test]
    fn another_sites_page_does_not_reach_the_stream() {
        let path = "/_host/dev/events";
        let host = ("host", "localhost:8000");
        assert!(!is_refused(path, &[host], &[]));
        assert!(!is_refused(
            path,
            &[host, ("origin", "http://localhost:8000")],
            &[]
        ));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:9000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(is_refused(path, &[host, foreign], &[]), "{foreign:?}");
            assert!(
                !is_refused("/", &[host, foreign], &[]),
                "the app decides of its own pages"
            );
        }
    }
}
