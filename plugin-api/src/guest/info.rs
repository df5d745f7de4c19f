//! Facts about a request that the request itself does not contain, such as the address of the client.

use std::{net::SocketAddr, str};

use bytes::Bytes;
#[cfg(feature = "axum-info")]
use http::Uri;
use http::{Request, uri::PathAndQuery};

use super::context::join_mount;
use crate::{BoxError, abi::RequestView, crossing::cache::Cache};

/// Facts about a request that the request itself does not contain. An app finds them in the request's extensions.
///
/// With the feature `axum-info` of this crate, the extensions also contain axum's `ConnectInfo<SocketAddr>` with the
/// peer, and axum's `OriginalUri` with the mount in its path, as in a nested `Router`.
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
    /// The path and query that the client sent, with the mount.
    original_path: PathAndQuery,
    /// The mount as text, in `Bytes` because every clone of this struct then shares the memory.
    mount: Bytes,
    /// The request ID. Need not be UTF-8, because the client may have chosen the bytes.
    request_id: Bytes,
}

impl RequestInfo {
    /// Returns the facts about `request`. `path` is the path of the [`Request`] that the app receives, or `None` if
    /// that request has no path.
    ///
    /// # Errors
    ///
    /// Returns an error if RFC 3986 does not allow the path that the client sent.
    pub(super) fn new(
        request: &RequestView<'_>,
        path: Option<&PathAndQuery>,
        cache: &mut Cache<'_>,
    ) -> Result<Self, BoxError> {
        let [app_path, original] = [request.path(), request.original_path()];
        let (mount, id) = (request.mount().as_bytes(), request.request_id());
        let original_path = match path {
            // Without a mount in the path, both paths are equal, and the clone is cheaper than parsing again.
            Some(path) if app_path == original => path.clone(),
            _ => cache.path(original.as_bytes())?,
        };
        // Mount and ID share one allocation.
        let mut request_id = Bytes::from([mount, id].concat());
        let mount = request_id.split_to(mount.len());
        Ok(Self {
            peer: request.peer(),
            original_path,
            mount,
            request_id,
        })
    }

    /// Returns the address of the client, or of the proxy before the server. Returns `None` if the connection has no
    /// address.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Returns the path and query that the client sent, with the mount.
    #[must_use]
    pub fn original_path(&self) -> &PathAndQuery {
        &self.original_path
    }

    /// Returns the mount of the app in this request: the path prefix that the app serves, such as `/` or `/shop`.
    #[must_use]
    pub fn mount(&self) -> &str {
        str::from_utf8(&self.mount).unwrap_or("/")
    }

    /// Returns a path of the app as the client of this request sees it, with the mount: for `/cart` of an app at
    /// `/shop`, returns `/shop/cart`. Use this for every path that the app sends to the client, because the server does
    /// not rewrite responses: the `Location` of redirects, links, and the paths of cookies.
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
        join_mount(self.mount(), path)
    }

    /// Returns the ID of this request in the log. Empty if the server sent no ID, or if the ID is not UTF-8.
    #[must_use]
    pub fn request_id(&self) -> &str {
        str::from_utf8(&self.request_id).unwrap_or_default()
    }

    /// Returns the facts about a request that an app receives without a server, for `testing` and `standalone`.
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

    /// Inserts this value into the extensions of `request`, and the extensions that axum's extractors need.
    pub(crate) fn insert_into<B>(self, request: &mut Request<B>) {
        #[cfg(feature = "axum-info")]
        {
            use axum::extract::{ConnectInfo, OriginalUri};

            // Scheme and authority, if present, are those of the app's request. Only the path differs.
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
