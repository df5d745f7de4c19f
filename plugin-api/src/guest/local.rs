//! An app that runs in this process, without a library and without the ABI, for `standalone` and `testing`.

use std::{future::poll_fn, net::SocketAddr, pin::pin, task::Poll, time::Duration};

use http::{Request, StatusCode, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use tokio::time::{self, Instant};

use super::{
    Body, Context,
    app::{App, AppFuture},
    info::RequestInfo,
    local_response::{Response, ResponseBody},
    native_request,
};
use crate::{
    BoxError,
    abi::{self, RequestView},
    crossing::{AbiRequestParts, HeaderFields, PanicBoundary, export},
    panics::catch,
};

/// A started app in this process.
pub(crate) struct InProcessApp {
    app: Box<dyn App>,
    context: Context,
}

impl InProcessApp {
    /// Calls the author's function and waits for the app. Returns an error if the function fails.
    pub(crate) async fn start(
        context: Context,
        build: impl FnOnce(Context) -> AppFuture,
    ) -> Result<Self, BoxError> {
        let app = build(context.clone()).await?;
        Ok(Self { app, context })
    }

    /// Answers a request. As in the server, the response is a 500 if the app returns an error or panics.
    ///
    /// `request` has a path below the app's mount.
    pub(crate) async fn answer<B>(&self, request: Request<B>, peer: Option<SocketAddr>) -> Response
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (head, body) = request.into_parts();
        let mut request = Request::from_parts(head, Body::from_local(body, CurrentThread));
        let path = request.uri().path_and_query().cloned();
        let original = original_path(self.context.mount(), path);
        RequestInfo::local(peer, original, self.context.mount()).insert_into(&mut request);
        let result = match catch(|| self.app.answer(request)) {
            Some(response) => {
                let mut response = pin!(response);
                // `catch` runs around each poll, because it cannot stay active while the future is pending.
                poll_fn(|context| match catch(|| response.as_mut().poll(context)) {
                    Some(polled) => polled.map(Some),
                    None => Poll::Ready(None),
                })
                .await
            }
            None => None,
        };
        match result {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "The app returned an error"
                );
                internal_server_error()
            }
            // `catch` has reported the panic.
            None => internal_server_error(),
        }
    }

    /// Starts the drain of the app: [`Context::draining`] is ready from now on.
    pub(crate) fn drain(&self) {
        self.context.set_draining(true);
    }

    /// Calls the app's hook for a handover, and returns the state for the next version. Returns an error if the app has
    /// no hook or the hook fails.
    #[cfg(feature = "testing")]
    pub(crate) async fn hand_over(&self) -> Result<Vec<u8>, BoxError> {
        let hook = self.context.handover_hook();
        let hook = hook.ok_or("it has nothing to hand over")?;
        // Set after the check and before the hook runs, as in a server: the hook for a failed handover belongs to a
        // handover hook that has run.
        self.context.set_handover_started(true);
        hook().await
    }

    /// Cancels a handover and a drain: the app continues to serve. Runs the hook of [`Context::on_handover_failed`] if
    /// [`hand_over`](Self::hand_over) was called before, and returns the hook's error.
    #[cfg(feature = "testing")]
    pub(crate) async fn cancel_handover(&self) -> Result<(), BoxError> {
        self.context.set_draining(false);
        match self.context.take_handover_failed_hook() {
            Some(hook) => hook().await.map(drop),
            None => Ok(()),
        }
    }

    /// Reports to the app that no earlier generation runs: [`Context::previous_ended`] is ready from now on.
    #[cfg(feature = "testing")]
    pub(crate) fn set_previous_ended(&self) {
        self.context.set_has_predecessor(false);
    }

    /// Stops the app as the server does: runs the shutdown hooks one after the other. Continues with the next hook
    /// after a hook that panics or does not end in time.
    pub(crate) async fn stop(&self) {
        let deadline = Instant::now() + HOOKS_TIMEOUT;
        while let Some(mut hook) = self.context.next_shutdown_hook() {
            let run = poll_fn(|context| {
                let polled = catch(|| hook.as_mut().poll(context));
                polled.unwrap_or(Poll::Ready(()))
            });
            // `timeout_at` polls the hook before it checks the deadline, so each hook after a slow hook is still polled
            // once.
            if time::timeout_at(deadline, run).await.is_err() {
                tracing::warn!(timeout = ?HOOKS_TIMEOUT, "A shutdown hook did not end in time");
            }
        }
        // A hook may own a clone of the context, which owns the hooks. Without this call, such a cycle would leak.
        self.context.clear_hooks();
    }
}

/// Runs `work` with `request` as a native handler gets it: converted to ABI form, and borrowed until `work` returns.
pub(crate) fn with_native_request<R>(
    request: Request<Body>,
    work: impl FnOnce(native_request::Request<'_>) -> R,
) -> R {
    let (mut head, body) = request.into_parts();
    let info = head.extensions.remove::<RequestInfo>();
    let mut body = export(body, CurrentThread);
    let fields = HeaderFields::new(&head.headers);
    let parts = AbiRequestParts {
        // The path of the request has no mount, so no mount must be removed. The app's mount is set below.
        mount: "/",
        peer: info.as_ref().and_then(RequestInfo::peer),
        request_id: None,
        headers: fields.as_abi(),
        fetch_headers: None,
        body: &raw mut body,
        upgrade: std::ptr::null_mut(),
        protocol: None,
    };
    parts.with_abi(&head, |request| {
        // SAFETY: `with_abi` passes a pointer to a complete request. The copy contains only pointers and numbers, so
        // nothing is dropped twice.
        let mut request = unsafe { request.read() };
        if let Some(info) = &info {
            request.mount = abi::Slice::new(info.mount().as_bytes());
            request.original_path = abi::Slice::new(info.original_path().as_str().as_bytes());
        }
        // SAFETY: `head`, `fields`, `body` and `info` are valid until `with_abi` returns, and no other code uses the
        // body until then. `upgrade` is null.
        work(native_request::Request::new(unsafe {
            RequestView::new(&request)
        }))
    })
}

/// The time limit for all shutdown hooks of an app together, as [`Context::on_shutdown`] documents it.
const HOOKS_TIMEOUT: Duration = Duration::from_secs(5);

fn internal_server_error() -> Response {
    let text = Full::from("500 Internal Server Error\n");
    let body: ResponseBody = text.map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Returns the path and query that a client of the server would have sent: `mount` followed by `path`, the path below
/// the mount.
fn original_path(mount: &str, path: Option<PathAndQuery>) -> PathAndQuery {
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if mount == "/" {
        return path;
    }
    format!("{mount}{path}").parse().unwrap_or(path)
}

/// A boundary that only catches panics. The work runs on the calling thread, in the runtime that the thread has already
/// entered, because the app and its caller share one runtime.
#[derive(Clone, Copy, Debug)]
struct CurrentThread;

impl PanicBoundary for CurrentThread {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        catch(work)
    }
}
