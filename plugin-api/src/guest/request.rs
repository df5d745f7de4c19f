//! A request that the host lent, as the `http` crate has requests.

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

/// Copies the host's request into `head`. It is written in place, because moving a `Request` is expensive.
///
/// # Errors
///
/// When a part is not valid HTTP. This should not happen, because the host checks it first.
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

fn uri(
    scheme: &[u8],
    authority: &[u8],
    path: &[u8],
    cache: &mut Cache<'_>,
) -> Result<Uri, BoxError> {
    if scheme.is_empty() && authority.is_empty() && !path.is_empty() {
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
