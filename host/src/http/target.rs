//! Which host and resource a request is for: the rules that a server has to check and hyper does not (RFC
//! 9112, section 3.2; RFC 9113, section 8.3.1).

use std::net::Ipv6Addr;

use http::{HeaderValue, Method, Version, header::HOST, request::Parts, uri::Authority};
use hyper::ext::Protocol;

use super::{
    fields::{self, FieldCheck},
    header_scan::HeaderScan,
    refusal::Refusal,
};

/// The result of checking the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadCheck {
    /// The head is as an app expects it.
    Valid,
    /// [`normalize`] has to change a field before the app sees the head.
    Normalize,
    /// The request has to be refused.
    Refuse(Refusal),
}

/// Checks the head of a request. `scan` has the `host` fields of the head.
pub(super) fn check(head: &Parts, scan: &HeaderScan<'_>) -> HeadCheck {
    let names_host = match scan.host {
        // More than one `host` field is an error in every version, because proxies differ in which of
        // them they use.
        Some(host) => scan.hosts == 1 && is_host(host.as_bytes()),
        None => head.version != Version::HTTP_11,
    };
    if !names_host {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    // The usual request of HTTP/1 has only a path, and needs no further check.
    let is_origin_form = head.version != Version::HTTP_2
        && head.uri.authority().is_none()
        && path.starts_with('/')
        && head.method != Method::CONNECT;
    if is_origin_form {
        return HeadCheck::Valid;
    }
    check_target(head, scan)
}

/// Checks a head of HTTP/2, or of HTTP/1 whose target is more than a path.
fn check_target(head: &Parts, scan: &HeaderScan<'_>) -> HeadCheck {
    let is_http2 = head.version == Version::HTTP_2;
    let (uri, authority) = (&head.uri, head.uri.authority());
    // An authority has the form of a `host` field, without a user name (RFC 9110, section 4.2.4).
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    // An extended CONNECT (RFC 8441) has a path, unlike one for a tunnel.
    let is_tunnel = head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_none();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let is_target = match path.as_bytes() {
        // Only CONNECT names no resource. It has to name a port (RFC 9110, section 9.3.6).
        b"" => is_tunnel && authority.is_some_and(|authority| authority.port_u16().is_some()),
        _ if is_tunnel => false,
        b"*" => head.method == Method::OPTIONS,
        // The absolute form of HTTP/1 may leave out an empty path. `:path` of HTTP/2 may not.
        [b'?', ..] => !is_http2,
        _ => true,
    };
    if !is_target {
        return HeadCheck::Refuse(Refusal::BadTarget);
    }
    if is_http2 {
        return check_http2(head, scan, authority);
    }
    match authority {
        Some(authority) if !is_tunnel && !is_equal(scan.host, authority) => HeadCheck::Normalize,
        _ => HeadCheck::Valid,
    }
}

fn check_http2(head: &Parts, scan: &HeaderScan<'_>, authority: Option<&Authority>) -> HeadCheck {
    let is_for_one_host = match (authority, scan.host) {
        (None, host) => host.is_some_and(|host| !host.is_empty()),
        (Some(_), None) => true,
        (Some(authority), Some(host)) => {
            is_equal(Some(host), authority) || is_same_host(authority, host, head.uri.scheme_str())
        }
    };
    if !is_for_one_host {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    match fields::check(&head.headers) {
        FieldCheck::Valid => HeadCheck::Valid,
        FieldCheck::SplitCookie => HeadCheck::Normalize,
        FieldCheck::Padded => HeadCheck::Refuse(Refusal::BadField),
    }
}

/// Whether the value of a `host` field is this authority, byte by byte.
fn is_equal(host: Option<&HeaderValue>, authority: &Authority) -> bool {
    host.is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes())
}

/// Whether both name the same host and port. Upper and lower case are equal, and the default port of the
/// scheme may be left out.
#[cold]
fn is_same_host(authority: &Authority, host: &HeaderValue, scheme: Option<&str>) -> bool {
    let port = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => "",
    };
    let without_port = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_suffix(port).or(lower.strip_suffix(':'));
        host.unwrap_or(&lower).to_owned()
    };
    host.to_str()
        .is_ok_and(|host| without_port(host) == without_port(authority.as_str()))
}

/// Changes the fields of a head for which [`check`] returned [`HeadCheck::Normalize`].
#[cold]
pub(super) fn normalize(head: &mut Parts) {
    if head.version == Version::HTTP_2 {
        fields::join_cookies(&mut head.headers);
    } else if let Some(authority) = head.uri.authority() {
        // The host in an absolute target replaces the `host` field (RFC 9112, section 3.2.2).
        let host = HeaderValue::from_str(authority.as_str());
        host.into_iter()
            .for_each(|host| drop(head.headers.insert(HOST, host)));
    }
}

/// Whether `value` is empty, or a host with or without a port (RFC 9110, section 7.2; RFC 3986, section
/// 3.2.2).
///
/// A comma is not accepted, although the grammar allows it in a name: no real name has a comma, but two
/// joined `host` fields do.
pub(super) fn is_host(value: &[u8]) -> bool {
    let end = value
        .iter()
        .position(|&byte| !UNRESERVED[usize::from(byte)]);
    let Some(end) = end else {
        return true;
    };
    match &value[end..] {
        [b':', port @ ..] if end > 0 => port.iter().all(u8::is_ascii_digit),
        _ => is_unusual_host(value),
    }
}

/// Whether `value` is an IPv6 address in brackets, or a name with characters that few names have.
#[cold]
fn is_unusual_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        // A zone names a network interface (RFC 6874).
        let address = address
            .split_once("%25")
            .map_or(address, |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (name, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
    !name.is_empty() && is_name(name.as_bytes()) && is_port(port)
}

fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    text.is_empty() || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', one, two, rest @ ..] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if UNRESERVED[usize::from(*byte)] || b"!$&'()*+;=".contains(byte) => {
                rest
            }
            _ => return false,
        }
    }
}

/// Whether a byte is one of those that RFC 3986 calls unreserved. Nearly all names and IPv4 addresses are
/// made of these.
static UNRESERVED: [bool; 256] = {
    let mut is_unreserved = [false; 256];
    let mut at = 0;
    while at < is_unreserved.len() {
        let byte = at as u8;
        is_unreserved[at] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        at += 1;
    }
    is_unreserved
};

#[cfg(test)]
mod tests;
