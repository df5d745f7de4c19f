//! The request as the app sees it.

use std::{
    net::SocketAddr,
    pin::Pin,
    str,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    Method, Request, Uri, Version,
    uri::{self, PathAndQuery},
};
use http_body::{Frame, SizeHint};

#[cfg(feature = "local")]
use crate::crossing::{Guard, export};
use crate::{
    BodyError, BoxError, abi,
    crossing::{Imported, add_fields},
};

/// The body of a request: an [`http_body::Body`] of [`Bytes`].
///
/// It is read as it arrives; not reading holds the client back. Dropping it unread is fine.
#[derive(Debug)]
pub struct Body(Imported);

#[cfg(feature = "local")]
impl Body {
    /// A body of this process, which is polled, and dropped, under `guard`.
    pub(crate) fn of<B>(body: B, guard: impl Guard) -> Self
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Imported::new(export(body, guard)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0
            .poll_frame(context)
            .map_ok(|frame| frame.map_data(Bytes::from))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// What the server knows of a request beside the request itself. In the request's extensions.
///
/// With the feature `axum` of this crate, axum's `ConnectInfo<SocketAddr>` has the peer, and its
/// `OriginalUri` the mount, as an app that is nested has it.
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

    /// What identifies this request in the log. Empty when the server gave none.
    #[must_use]
    pub fn request_id(&self) -> &str {
        str::from_utf8(&self.request_id).unwrap_or_default()
    }

    /// What is known of a request that no server sent.
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
    pub(crate) fn insert_into(self, request: &mut Request<Body>) {
        #[cfg(feature = "axum")]
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

/// The request that the host lent.
///
/// # Errors
///
/// When a part is not what HTTP allows, which a host checks before.
///
/// # Safety
///
/// `request` and what it borrows are valid until this returns.
pub(crate) unsafe fn request(request: &abi::Request) -> Result<Request<Body>, BoxError> {
    // SAFETY: the caller says so, as for all the slices below.
    let bytes = |slice: abi::Slice| unsafe { slice.bytes() };
    // SAFETY: the host gives a body of its own, for the plugin to take.
    let body = unsafe { &mut *request.body };
    let mut head = Request::new(Body(Imported::new(body.take())));

    *head.method_mut() = Method::from_bytes(bytes(request.method))?;
    *head.version_mut() = version(request.version);
    *head.uri_mut() = uri(
        bytes(request.scheme),
        bytes(request.authority),
        bytes(request.path),
    )?;
    // SAFETY: as above.
    unsafe { add_fields(head.headers_mut(), request.headers) }?;
    let (path, original_path) = (bytes(request.path), bytes(request.original_path));
    let info = RequestInfo {
        peer: request.peer.to_std(),
        original_path: match head.uri().path_and_query() {
            // Below the root the two are one, and so are their bytes.
            Some(below) if std::ptr::eq(path, original_path) => below.clone(),
            _ => path_and_query(original_path)?,
        },
        mount: Bytes::copy_from_slice(bytes(request.mount)),
        request_id: Bytes::copy_from_slice(bytes(request.request_id)),
    };
    info.insert_into(&mut head);
    Ok(head)
}

fn version(number: u32) -> Version {
    match number {
        9 => Version::HTTP_09,
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        30 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

fn uri(scheme: &[u8], authority: &[u8], path: &[u8]) -> Result<Uri, BoxError> {
    let mut parts = uri::Parts::default();
    if !scheme.is_empty() {
        parts.scheme = Some(scheme.try_into()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(authority.try_into()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(path_and_query(path)?);
    }
    Ok(Uri::from_parts(parts)?)
}

fn path_and_query(path: &[u8]) -> Result<PathAndQuery, BoxError> {
    if path.is_empty() {
        return Ok(PathAndQuery::from_static("/"));
    }
    Ok(PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(
        path,
    ))?)
}
