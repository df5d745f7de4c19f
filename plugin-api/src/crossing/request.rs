//! Converts the head of a request to the ABI struct [`Request`](crate::abi::Request).

#[cfg(any(feature = "host", feature = "local"))]
use std::{ffi::c_void, net::SocketAddr, ptr};

use http::Version;
#[cfg(any(feature = "host", feature = "local"))]
use http::request::Parts;

#[cfg(any(feature = "host", feature = "local"))]
use crate::abi::{self, Headers, HeadersFn, Slice};

#[cfg(any(feature = "host", feature = "local"))]
/// The fields of an [`abi::Request`] that do not come from the request's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbiRequestParts<'a> {
    /// The mount: a prefix of the request's path that ends at a segment boundary.
    pub(crate) mount: &'a str,
    /// The address of the client, or of the proxy before the server.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) request_id: Option<&'a [u8]>,
    /// The header fields. Not read from the head, because the host moves the map out of the head before the call. Empty
    /// if the app fetches the header fields on demand, with `fetch_headers`.
    pub(crate) headers: Headers,
    /// For an app that fetches the header fields on demand: the function that returns the fields, and its argument.
    pub(crate) fetch_headers: Option<(HeadersFn, *mut c_void)>,
    pub(crate) body: *mut abi::Body,
    /// The client's connection, if the request asks for an upgrade; otherwise null or an empty stream.
    pub(crate) upgrade: *mut abi::Stream,
    /// The `:protocol` of an extended `CONNECT`.
    pub(crate) protocol: Option<&'a str>,
}

#[cfg(any(feature = "host", feature = "local"))]
impl AbiRequestParts<'_> {
    /// Runs `work` with an ABI request that combines `self` and `head`. The pointer is valid until `work` returns.
    pub(crate) fn with_abi<R>(
        self,
        head: &Parts,
        work: impl FnOnce(*const abi::Request) -> R,
    ) -> R {
        let (original_path_with_slash, path_with_slash);
        let original_path = match head.uri.path_and_query().map_or("", |path| path.as_str()) {
            // A target in absolute form may omit an empty path, as in `http://host?query`. The path is then `/` (RFC
            // 9110, section 4.2.3).
            query if query.starts_with('?') => {
                original_path_with_slash = prepend_slash(query);
                original_path_with_slash.as_str()
            }
            path => path,
        };
        let path = match strip_mount(self.mount, original_path) {
            path if path.starts_with(['/', '*']) => path,
            // A target that is only an authority, as in `CONNECT host:443`, has no path.
            "" if head.uri.path_and_query().is_none() => "",
            // The path equals the mount: the app sees its root.
            "" => "/",
            // The same, with a query.
            query => {
                path_with_slash = prepend_slash(query);
                &path_with_slash
            }
        };
        let (lay_out, source) = self.fetch_headers.unzip();
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
            version: version_number(head.version),
            flags: 0,
            source: source.unwrap_or(ptr::null_mut()),
            lay_out,
        };
        work(&raw const request)
    }
}

#[cfg(any(feature = "host", feature = "local"))]
// Marked cold because targets without a path are rare.
#[cold]
fn prepend_slash(query: &str) -> String {
    format!("/{query}")
}

#[cfg(any(feature = "host", feature = "local"))]
/// Returns `path` without its prefix `mount`. The mount `/` is not removed, because a path must keep its first slash.
fn strip_mount<'a>(mount: &str, path: &'a str) -> &'a str {
    if mount == "/" {
        path
    } else {
        path.strip_prefix(mount).unwrap_or(path)
    }
}

#[cfg(any(feature = "host", feature = "local"))]
/// Returns the number of an HTTP version in [`abi::Request::version`].
fn version_number(version: Version) -> u32 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}

/// Returns the HTTP version with this number. An unknown number counts as HTTP/1.1.
pub(crate) fn version(number: u32) -> Version {
    match number {
        9 => Version::HTTP_09,
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        30 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}
