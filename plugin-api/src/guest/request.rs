//! Converts a request of the host to an [`http::Request`].

use http::{Method, Request, Uri, uri};

#[cfg(feature = "info")]
use super::info::RequestInfo;
use crate::{
    BoxError,
    abi::RequestView,
    crossing::{
        cache::{self, Cache},
        version,
    },
};

/// Copies the method, version, URI and header fields of the host's `request` into `head`. With the feature `info`, also
/// inserts the `RequestInfo`. Writes into an existing `Request`, because moving a `Request` is expensive.
///
/// # Errors
///
/// Returns an error if a part is not valid HTTP. This should not happen, because the host has checked the request.
pub(super) fn fill<B>(head: &mut Request<B>, request: &RequestView<'_>) -> Result<(), BoxError> {
    let fields = request.headers();
    *head.method_mut() = Method::from_bytes(request.method().as_bytes())?;
    *head.version_mut() = version(request.version());
    let [scheme, authority, path] = request.target();
    cache::with(|cache| {
        *head.uri_mut() = uri(scheme, authority, path, cache)?;
        #[cfg(feature = "info")]
        {
            let path = head.uri().path_and_query();
            let info = RequestInfo::new(request, path, cache)?;
            info.insert_into(head);
        }
        cache.fill(head.headers_mut(), fields)?;
        Ok(())
    })
}

/// Returns the URI with these parts. An empty part is absent from the URI.
fn uri(
    scheme: &[u8],
    authority: &[u8],
    path: &[u8],
    cache: &mut Cache<'_>,
) -> Result<Uri, BoxError> {
    if scheme.is_empty() && authority.is_empty() && !path.is_empty() {
        // An HTTP/1 request usually has only a path. Such a URI needs no check of how its parts fit together.
        return Ok(cache.path(path)?.into());
    }
    let mut parts = uri::Parts::default();
    if !scheme.is_empty() {
        parts.scheme = Some(scheme.try_into()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(authority.try_into()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(cache.path(path)?);
    }
    Ok(Uri::from_parts(parts)?)
}
