//! What the server knows of a request.

use std::{net::SocketAddr, str};

use bytes::Bytes;
#[cfg(feature = "axum-info")]
use http::Uri;
use http::{Request, uri::PathAndQuery};

use super::context::below;
use crate::{BoxError, abi::RequestView, crossing::cache::Cache};

/// What the server knows of a request beside the request itself. In the request's extensions.
///
/// With the feature `axum-info` of this crate, axum's `ConnectInfo<SocketAddr>` has the peer, and axum's
/// `OriginalUri` has the path with the mount, as in a nested `Router`.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use plugin_api::RequestInfo;
///
/// async fn whoami(Extension(info): Extension<RequestInfo>) -> String {
///     format!("{:?}", info.peer())
/// }
///
/// let app: Router = Router::new().route("/whoami", get(whoami));
/// ```
#[derive(Clone, Debug)]
pub struct RequestInfo {
    peer: Option<SocketAddr>,
    original_path: PathAndQuery,
    mount: Bytes,
    request_id: Bytes,
}

impl RequestInfo {
    /// The information of `request`. `path` is that of the app's request, if it has one.
    ///
    /// # Errors
    ///
    /// When the client's path is not what RFC 3986 allows.
    pub(super) fn new(
        request: &RequestView<'_>,
        path: Option<&PathAndQuery>,
        cache: &mut Cache<'_>,
    ) -> Result<Self, BoxError> {
        let [below, original] = [request.path(), request.original_path()];
        let (mount, id) = (request.mount().as_bytes(), request.request_id());
        let original_path = match path {
            Some(path) if below == original => path.clone(),
            _ => cache.path(original.as_bytes())?,
        };
        let mut request_id = Bytes::from([mount, id].concat());
        let mount = request_id.split_to(mount.len());
        Ok(Self {
            peer: request.peer(),
            original_path,
            mount,
            request_id,
        })
    }

    /// The address of the client, or of the proxy before the server. None for a connection without
    /// one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Path and query as the client sent them, with the mount.
    #[must_use]
    pub fn original_path(&self) -> &PathAndQuery {
        &self.original_path
    }

    /// Where the app is mounted: `/`, or `/shop`.
    #[must_use]
    pub fn mount(&self) -> &str {
        str::from_utf8(&self.mount).unwrap_or("/")
    }

    /// A path of the app's as the client of this request sees it: `/cart` of an app at `/shop` is
    /// `/shop/cart`. For what nobody rewrites: the `Location` of redirects, links, paths of cookies.
    ///
    /// ```
    /// use axum::{Extension, response::Redirect};
    /// use plugin_api::RequestInfo;
    ///
    /// async fn checkout(Extension(info): Extension<RequestInfo>) -> Redirect {
    ///     Redirect::to(&info.below_mount("/cart"))
    /// }
    /// ```
    #[must_use]
    pub fn below_mount(&self, path: &str) -> String {
        below(self.mount(), path)
    }

    /// What identifies this request in the log. Empty when the server gave none.
    #[must_use]
    pub fn request_id(&self) -> &str {
        str::from_utf8(&self.request_id).unwrap_or_default()
    }

    /// The information of a request that no server sent.
    #[cfg(feature = "local")]
    pub(crate) fn local(
        peer: Option<SocketAddr>,
        original_path: PathAndQuery,
        mount: &str,
    ) -> Self {
        Self {
            peer,
            original_path,
            mount: Bytes::copy_from_slice(mount.as_bytes()),
            request_id: Bytes::new(),
        }
    }

    /// Puts this into the extensions of `request`, and what axum's extractors take.
    pub(crate) fn insert_into<B>(self, request: &mut Request<B>) {
        #[cfg(feature = "axum-info")]
        {
            use axum::extract::{ConnectInfo, OriginalUri};

            let mut parts = request.uri().clone().into_parts();
            if parts.path_and_query.is_some() {
                parts.path_and_query = Some(self.original_path.clone());
            }
            let extensions = request.extensions_mut();
            if let Ok(original) = Uri::from_parts(parts) {
                extensions.insert(OriginalUri(original));
            }
            if let Some(peer) = self.peer {
                extensions.insert(ConnectInfo(peer));
            }
        }
        request.extensions_mut().insert(self);
    }
}
