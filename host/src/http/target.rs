//! Which host and resource a request is for: the rules for whoever takes requests off the wire (RFC
//! 9112, section 3.2; RFC 9113, section 8.3.1).

use std::net::Ipv6Addr;

use http::{HeaderValue, Method, Version, header::HOST, request::Parts, uri::Authority};
use hyper::ext::Protocol;

use super::{
    fields::{self, Fields},
    noted::Noted,
    refusal::Refusal,
};

/// What has to be done with the head of a request before an app sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Sound,
    /// [`mend`] has to put its fields right.
    Mend,
    /// No app may see it.
    Refuse(Refusal),
}

/// Judges the head of a request, whose fields were looked through.
pub(super) fn judge(head: &Parts, noted: &Noted<'_>) -> Verdict {
    let names_host = match noted.host {
        // More than one is an error in each version, as proxies differ in which they go by.
        Some(host) => noted.hosts == 1 && is_host(host.as_bytes()),
        None => head.version != Version::HTTP_11,
    };
    if !names_host {
        return Verdict::Refuse(Refusal::BadHost);
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let is_origin_form = head.version != Version::HTTP_2
        && head.uri.authority().is_none()
        && path.starts_with('/')
        && head.method != Method::CONNECT;
    if is_origin_form {
        return Verdict::Sound;
    }
    judge_target(head, noted)
}

/// Judges a head of HTTP/2, and one of HTTP/1 that asks for more than a path.
fn judge_target(head: &Parts, noted: &Noted<'_>) -> Verdict {
    let is_http2 = head.version == Version::HTTP_2;
    let (uri, authority) = (&head.uri, head.uri.authority());
    // What may stand in `Host` may stand here: no user, as RFC 9110, section 4.2.4 has it.
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return Verdict::Refuse(Refusal::BadHost);
    }
    let is_tunnel = head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_none();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let is_target = match path.as_bytes() {
        // Only CONNECT names a host and no resource, and a port with it (RFC 9110, section 9.3.6).
        b"" => is_tunnel && authority.is_some_and(|authority| authority.port_u16().is_some()),
        _ if is_tunnel => false,
        b"*" => head.method == Method::OPTIONS,
        // An absolute form may leave out an empty path; HTTP/2's `:path` has one always.
        [b'?', ..] => !is_http2,
        _ => true,
    };
    if !is_target {
        return Verdict::Refuse(Refusal::BadTarget);
    }
    if is_http2 {
        return judge_http2(head, noted, authority);
    }
    match authority {
        Some(authority) if !is_tunnel && !says(noted.host, authority) => Verdict::Mend,
        _ => Verdict::Sound,
    }
}

fn judge_http2(head: &Parts, noted: &Noted<'_>, authority: Option<&Authority>) -> Verdict {
    let is_for_one_host = match (authority, noted.host) {
        (None, host) => host.is_some_and(|host| !host.is_empty()),
        (Some(_), None) => true,
        (Some(authority), Some(host)) => {
            says(Some(host), authority) || is_same(authority, host, head.uri.scheme_str())
        }
    };
    if !is_for_one_host {
        return Verdict::Refuse(Refusal::BadHost);
    }
    match fields::judge(&head.headers) {
        Fields::Sound => Verdict::Sound,
        Fields::CookieInCrumbs => Verdict::Mend,
        Fields::Padded => Verdict::Refuse(Refusal::BadField),
    }
}

/// Whether the value of a `host` field is this authority.
fn says(host: Option<&HeaderValue>, authority: &Authority) -> bool {
    host.is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes())
}

/// Whether both name one host and port, in whatever case, with or without the port of the scheme.
#[cold]
fn is_same(authority: &Authority, host: &HeaderValue, scheme: Option<&str>) -> bool {
    let port = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => "",
    };
    let plain = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_suffix(port).or(lower.strip_suffix(':'));
        host.unwrap_or(&lower).to_owned()
    };
    host.to_str()
        .is_ok_and(|host| plain(host) == plain(authority.as_str()))
}

/// Puts the fields of a head right, of which [`judge`] says that they need it.
#[cold]
pub(super) fn mend(head: &mut Parts) {
    if head.version == Version::HTTP_2 {
        fields::join_cookies(&mut head.headers);
    } else if let Some(authority) = head.uri.authority() {
        // The field that came is ignored (RFC 9112, section 3.2.2).
        let host = HeaderValue::from_str(authority.as_str());
        host.into_iter()
            .for_each(|host| drop(head.headers.insert(HOST, host)));
    }
}

/// Whether these are a host and maybe a port, or nothing (RFC 9110, section 7.2; RFC 3986, section
/// 3.2.2). A comma, which a name may have by the letter, is what joins two fields, and no name has.
pub(super) fn is_host(value: &[u8]) -> bool {
    let end = value.iter().position(|&byte| !PLAIN[usize::from(byte)]);
    let Some(end) = end else {
        return true;
    };
    match &value[end..] {
        [b':', port @ ..] if end > 0 => port.iter().all(u8::is_ascii_digit),
        _ => is_unusual_host(value),
    }
}

/// Whether this is an address in brackets, or a name with letters that hardly a host has.
#[cold]
fn is_unusual_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        // A zone says which of the machine's networks it is (RFC 6874).
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
            [byte, rest @ ..] if PLAIN[usize::from(*byte)] || b"!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

/// The bytes that names and IPv4 addresses are made of: those that RFC 3986 calls unreserved.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut at = 0;
    while at < plain.len() {
        let byte = at as u8;
        plain[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        at += 1;
    }
    plain
};

#[cfg(test)]
mod tests;
