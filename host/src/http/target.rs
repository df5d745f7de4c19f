//! Checks the host and the target of a request, by the rules that hyper does not check (RFC 9112, section 3.2; RFC
//! 9113, section 8.3.1).

use std::net::Ipv6Addr;

use http::{HeaderValue, Method, Version, header::HOST, request::Parts, uri::Authority};
use hyper::ext::Protocol;

use super::{
    fields::{self, FieldCheck},
    header_scan::HeaderScan,
    refusal::Refusal,
};

/// The result of [`check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadCheck {
    /// The head can be passed to an app.
    Valid,
    /// [`normalize`] has to change a field before the app sees the head.
    Normalize,
    /// The request has to be refused.
    Refuse(Refusal),
}

/// Checks the head of a request. `scan` is the scan of this head.
pub(super) fn check(head: &Parts, scan: &HeaderScan<'_>) -> HeadCheck {
    let has_valid_host = match scan.host {
        // More than one `host` field is an error in every version, because servers and proxies may use different ones.
        Some(host) => scan.host_count == 1 && is_host(host.as_bytes()),
        // HTTP/1.0 does not require the field, and HTTP/2 may have the host in `:authority`.
        None => head.version != Version::HTTP_11,
    };
    if !has_valid_host {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    // The usual target of HTTP/1 is only a path, and needs no further check.
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
    // The authority of the target must have the form of a `host` field, without a user name (RFC 9110, section 4.2.4).
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    // A CONNECT without `:protocol` requests a tunnel, and has no path. An extended CONNECT (RFC 8441) has a path.
    let is_tunnel = head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_none();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let is_valid_target = match path.as_bytes() {
        // Only a tunnel has no path. Its authority must have a port (RFC 9110, section 9.3.6).
        b"" => is_tunnel && authority.is_some_and(|authority| authority.port_u16().is_some()),
        _ if is_tunnel => false,
        b"*" => head.method == Method::OPTIONS,
        // In the absolute form of HTTP/1 the path before a query may be empty. In `:path` of HTTP/2 it may not.
        [b'?', ..] => !is_http2,
        _ => true,
    };
    if !is_valid_target {
        return HeadCheck::Refuse(Refusal::BadTarget);
    }
    if is_http2 {
        return check_http2(head, scan, authority);
    }
    match authority {
        // The host of an absolute target has precedence over the `host` field. `normalize` replaces the field.
        Some(authority) if !is_tunnel && !is_equal(scan.host, authority) => HeadCheck::Normalize,
        _ => HeadCheck::Valid,
    }
}

/// Checks the host and the header fields of a head of HTTP/2.
fn check_http2(head: &Parts, scan: &HeaderScan<'_>, authority: Option<&Authority>) -> HeadCheck {
    let has_one_host = match (authority, scan.host) {
        // Without `:authority`, the `host` field is required.
        (None, host) => host.is_some_and(|host| !host.is_empty()),
        (Some(_), None) => true,
        (Some(authority), Some(host)) => {
            is_equal(Some(host), authority) || is_same_host(authority, host, head.uri.scheme_str())
        }
    };
    if !has_one_host {
        return HeadCheck::Refuse(Refusal::BadHost);
    }
    match fields::check(&head.headers) {
        FieldCheck::Valid => HeadCheck::Valid,
        FieldCheck::SplitCookie => HeadCheck::Normalize,
        FieldCheck::PaddedValue => HeadCheck::Refuse(Refusal::BadField),
    }
}

/// Returns whether the value of a `host` field is equal to `authority`, byte by byte.
fn is_equal(host: Option<&HeaderValue>, authority: &Authority) -> bool {
    host.is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes())
}

/// Returns whether `authority` and `host` name the same host and port. The comparison ignores case and the default port
/// of the scheme.
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

/// Changes the header fields of a head for which [`check`] returned [`HeadCheck::Normalize`].
#[cold]
pub(super) fn normalize(head: &mut Parts) {
    if head.version == Version::HTTP_2 {
        fields::join_cookies(&mut head.headers);
    } else if let Some(authority) = head.uri.authority() {
        // The host in an absolute target replaces the `host` field (RFC 9112, section 3.2.2).
        // Never fails, because a valid authority is a valid field value.
        let host = HeaderValue::from_str(authority.as_str());
        host.into_iter()
            .for_each(|host| drop(head.headers.insert(HOST, host)));
    }
}

/// Returns whether `value` is empty, or is a host with or without a port (RFC 9110, section 7.2; RFC 3986, section
/// 3.2.2).
///
/// A comma is rejected, although the grammar allows a comma in a name. No real name has a comma, but two `host` fields
/// that a proxy has joined do.
pub(super) fn is_host(value: &[u8]) -> bool {
    let name_end = value
        .iter()
        .position(|&byte| !UNRESERVED[usize::from(byte)]);
    let Some(name_end) = name_end else {
        return true;
    };
    match &value[name_end..] {
        [b':', port @ ..] if name_end > 0 => port.iter().all(u8::is_ascii_digit),
        _ => is_unusual_host(value),
    }
}

/// Returns whether `value` is an IPv6 address in brackets, or a name with characters that few names have. A port may
/// follow.
#[cold]
fn is_unusual_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        // The zone of an address is not checked. It names a network interface (RFC 6874).
        let address = address
            .split_once("%25")
            .map_or(address, |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (name, port) = text
        .find(':')
        .map_or((text, ""), |colon| text.split_at(colon));
    !name.is_empty() && is_name(name.as_bytes()) && is_port(port)
}

/// Returns whether `text` is empty, or a colon with any number of digits.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    text.is_empty() || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns whether `name` has only the characters that RFC 3986 allows in a name, except the comma.
fn is_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if UNRESERVED[usize::from(*byte)] || b"!$&'()*+;=".contains(byte) => {
                rest
            }
            _ => return false,
        }
    }
}

/// Whether each byte is an unreserved character (RFC 3986, section 2.3). Nearly all names, and all IPv4 addresses,
/// consist of unreserved characters.
static UNRESERVED: [bool; 256] = {
    let mut is_unreserved = [false; 256];
    let mut index = 0;
    while index < is_unreserved.len() {
        let byte = index as u8;
        is_unreserved[index] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        index += 1;
    }
    is_unreserved
};

#[cfg(test)]
mod tests;
