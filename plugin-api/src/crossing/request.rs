//! The head of a request as it crosses.

#[cfg(any(feature = "host", feature = "local"))]
use std::{ffi::c_void, net::SocketAddr, ptr};

use http::Version;
#[cfg(any(feature = "host", feature = "local"))]
use http::request::Parts;

#[cfg(any(feature = "host", feature = "local"))]
use crate::abi::{self, Headers, LayOut, Slice};

#[cfg(any(feature = "host", feature = "local"))]
/// The parts of a request that are not in its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LentRequest<'a> {
    /// A prefix of the request's path, on a segment's boundary.
    pub(crate) mount: &'a str,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) request_id: Option<&'a [u8]>,
    /// The header fields, which the host may have taken out of the head. None when the app asks for them.
    pub(crate) headers: Headers,
    /// The function that gives the header fields to an app that asks, and its argument.
    pub(crate) lay_out: Option<(LayOut, *mut c_void)>,
    pub(crate) body: *mut abi::Body,
    pub(crate) upgrade: *mut abi::Stream,
    pub(crate) protocol: Option<&'a str>,
}

#[cfg(any(feature = "host", feature = "local"))]
impl LentRequest<'_> {
    /// Runs `work` with the request that is made of `self` and `head`, as it crosses.
    pub(crate) fn lend<R>(self, head: &Parts, work: impl FnOnce(*const abi::Request) -> R) -> R {
        let (rooted_original, rooted);
        let original_path = match head.uri.path_and_query().map_or("", |path| path.as_str()) {
            // An absolute form may leave out an empty path, which is the root's (RFC 9110, section
            // 4.2.3).
            query if query.starts_with('?') => {
                rooted_original = rooted_at(query);
                rooted_original.as_str()
            }
            path => path,
        };
        let path = match below(self.mount, original_path) {
            path if path.starts_with(['/', '*']) => path,
            // All but requests to an authority, as `CONNECT` is, have a path.
            "" if head.uri.path_and_query().is_none() => "",
            "" => "/",
            query => {
                rooted = rooted_at(query);
                &rooted
            }
        };
        let (lay_out, source) = self.lay_out.unzip();
        let request = abi::Request {
            size: size_of::<abi::Request>(),
            method: Slice::new(head.method.as_str().as_bytes()),
            scheme: Slice::from_option(head.uri.scheme_str()),
            authority: Slice::from_option(head.uri.authority().map(|authority| authority.as_str())),
            path: Slice::new(path.as_bytes()),
            original_path: Slice::new(original_path.as_bytes()),
            mount: Slice::new(self.mount.as_bytes()),
            request_id: self.request_id.map_or(Slice::NONE, Slice::new),
            peer: self.peer.map(Into::into).unwrap_or_default(),
            headers: self.headers,
            body: self.body,
            upgrade: self.upgrade,
            protocol: Slice::from_option(self.protocol),
            version: number(head.version),
            flags: 0,
            source: source.unwrap_or(ptr::null_mut()),
            lay_out,
        };
        work(&raw const request)
    }
}

#[cfg(any(feature = "host", feature = "local"))]
#[cold]
fn rooted_at(query: &str) -> String {
    format!("/{query}")
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
