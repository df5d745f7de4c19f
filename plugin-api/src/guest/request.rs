//! The request as the app sees it.

use std::{
    net::SocketAddr,
    pin::Pin,
    ptr, str,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    Method, Request, Uri,
    uri::{self, PathAndQuery},
};
use http_body::{Frame, SizeHint};

#[cfg(feature = "local")]
use crate::crossing::{Guard, export};
use crate::{
    BodyError, BoxError, abi,
    crossing::{Imported, Texts, version},
};

/// The body of a request: an [`http_body::Body`] of [`Bytes`].
///
/// It is read as it arrives; not reading holds the client back. Dropping it unread is fine.
#[derive(Debug)]
pub struct Body(Imported);

impl Body {
    /// The body that the host gave with a request; an empty one when that was taken before.
    ///
    /// # Safety
    ///
    /// `body` is null, or the host's, for the plugin to take.
    pub(crate) unsafe fn take(body: *mut abi::Body) -> Self {
        // SAFETY: the caller says so.
        let body = unsafe { body.as_mut() };
        Self(Imported::new(
            body.map_or_else(abi::Body::empty, abi::Body::take),
        ))
    }
}

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
/// With the feature `axum-info` of this crate, axum's `ConnectInfo<SocketAddr>` has the peer, and its
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

/// The request that the host lent.
///
/// # Errors
///
/// When a part is not what HTTP allows, which a host checks before.
///
/// # Safety
///
/// `request` and what it borrows are valid until this returns.
pub(crate) unsafe fn request(
    request: &abi::Request,
    body: Body,
) -> Result<Request<Body>, BoxError> {
    // SAFETY: the caller says so, as for all the slices below.
    let bytes = |slice: abi::Slice| unsafe { slice.bytes() };
    let (path, original) = (bytes(request.path), bytes(request.original_path));
    let (mount, id) = (bytes(request.mount), bytes(request.request_id));
    // Below the root the two are one.
    let is_moved = !ptr::eq(path, original);
    let moved = if is_moved { original } else { &[] };
    // SAFETY: as above.
    let mut texts = unsafe { Texts::new(request.headers, &[path, moved, mount, id]) };

    let mut head = Request::new(body);
    let headers = head.headers_mut();
    *headers = spare::take();
    // SAFETY: as above.
    unsafe { texts.add_fields(headers, request.headers) }?;
    *head.method_mut() = Method::from_bytes(bytes(request.method))?;
    *head.version_mut() = version(request.version);
    let path = texts.next(path.len());
    *head.uri_mut() = uri(bytes(request.scheme), bytes(request.authority), path)?;
    let original = texts.next(moved.len());
    let info = RequestInfo {
        peer: request.peer.to_std(),
        original_path: match head.uri().path_and_query() {
            Some(below) if !is_moved => below.clone(),
            _ => path_and_query(original)?,
        },
        mount: texts.next(mount.len()),
        request_id: texts.next(id.len()),
    };
    info.insert_into(&mut head);
    Ok(head)
}

fn uri(scheme: &[u8], authority: &[u8], path: Bytes) -> Result<Uri, BoxError> {
    if scheme.is_empty() && authority.is_empty() && !path.is_empty() {
        return Ok(path_and_query(path)?.into());
    }
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

fn path_and_query(path: Bytes) -> Result<PathAndQuery, BoxError> {
    if path.is_empty() {
        return Ok(PathAndQuery::from_static("/"));
    }
    Ok(PathAndQuery::from_maybe_shared(path)?)
}

/// Header maps that are not used any more: the next request needs one.
pub(crate) mod spare {
    use std::cell::Cell;

    use http::HeaderMap;

    thread_local! {
        static SPARE: Cell<Option<HeaderMap>> = const { Cell::new(None) };
    }

    /// An empty map, which may have room.
    pub(crate) fn take() -> HeaderMap {
        SPARE
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Leaves `map` to this thread's next request.
    pub(crate) fn keep(mut map: HeaderMap) {
        if (1..=LARGEST).contains(&map.capacity()) {
            map.clear();
            // While the thread ends there is nobody to leave it to.
            let _ = SPARE.try_with(|spare| spare.set(Some(map)));
        }
    }

    /// How many fields a map that is kept may have room for.
    const LARGEST: usize = 100;
}
