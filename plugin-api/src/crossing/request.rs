//! The head of a request as it crosses.

#[cfg(any(feature = "host", feature = "local"))]
use std::net::SocketAddr;

use http::Version;
#[cfg(any(feature = "host", feature = "local"))]
use http::request::Parts;

#[cfg(any(feature = "host", feature = "local"))]
use crate::abi::{self, Headers, Slice};

#[cfg(any(feature = "host", feature = "local"))]
/// What is known of a request beside the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// A prefix of its path, on a segment's boundary.
    pub(crate) mount: &'a str,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) request_id: Option<&'a str>,
}

#[cfg(any(feature = "host", feature = "local"))]
/// Runs `work` with the request that `head` is, as it crosses, without body and upgrade. It borrows
/// from `head` and `place`; `headers` are those of `head`, and may have been taken out of it.
pub(crate) fn lend<R>(
    head: &Parts,
    headers: Headers,
    place: Place<'_>,
    work: impl FnOnce(abi::Request) -> R,
) -> R {
    let original_path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let rooted;
    let path = match below(place.mount, original_path) {
        path if path.is_empty() || path.starts_with(['/', '*']) => path,
        query => {
            rooted = format!("/{query}");
            &rooted
        }
    };
    // All but requests to an authority, as `CONNECT` is, have a path.
    let has_path = head.uri.path_and_query().is_some();
    work(abi::Request {
        size: size_of::<abi::Request>(),
        method: Slice::new(head.method.as_str().as_bytes()),
        scheme: Slice::from_option(head.uri.scheme_str()),
        authority: Slice::from_option(head.uri.authority().map(|authority| authority.as_str())),
        path: Slice::new(if path.is_empty() && has_path {
            b"/"
        } else {
            path.as_bytes()
        }),
        original_path: Slice::new(original_path.as_bytes()),
        mount: Slice::new(place.mount.as_bytes()),
        request_id: Slice::from_option(place.request_id),
        peer: place.peer.map(Into::into).unwrap_or_default(),
        headers,
        body: std::ptr::null_mut(),
        upgrade: std::ptr::null_mut(),
        protocol: Slice::NONE,
        version: number(head.version),
        flags: 0,
    })
}

#[cfg(any(feature = "host", feature = "local"))]
/// `path` without its prefix `mount`.
fn below<'a>(mount: &str, path: &'a str) -> &'a str {
    if mount == "/" {
        path
    } else {
        path.strip_prefix(mount).unwrap_or(path)
    }
}

#[cfg(any(feature = "host", feature = "local"))]
fn number(version: Version) -> u32 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}

/// The version that has this number.
pub(crate) fn version(number: u32) -> Version {
    match number {
        9 => Version::HTTP_09,
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        30 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}
