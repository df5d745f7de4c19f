//! An app in this process, without a library or a boundary, for `standalone` and `testing`.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Request, StatusCode, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::time::{self, Instant};

use super::{
    Body, Context,
    app::{App, AppFuture},
    info::RequestInfo,
    native,
};
use crate::{
    BoxError,
    abi::{self, RequestView},
    crossing::{Guard, HeaderFields, LentRequest, export},
    panics::catch,
};

/// The body of a response.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The future of a response.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

/// A response.
pub(crate) type Response = http::Response<ResponseBody>;

/// A started app in this process.
pub(crate) struct InProcessApp {
    app: Box<dyn App>,
    context: Context,
}

impl InProcessApp {
    /// Starts an app.
    pub(crate) async fn start(
        context: Context,
        build: impl FnOnce(Context) -> AppFuture,
    ) -> Result<Self, BoxError> {
        let app = build(context.clone()).await?;
        Ok(Self { app, context })
    }

    /// Answers a request, as the server does: what fails, or panics, is a 500.
    pub(crate) async fn answer<B>(&self, request: Request<B>, peer: Option<SocketAddr>) -> Response
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (head, body) = request.into_parts();
        let mut request = Request::from_parts(head, Body::of(body, Here));
        let path = request.uri().path_and_query().cloned();
        let original = original_path(self.context.mount(), path);
        RequestInfo::local(peer, original, self.context.mount()).insert_into(&mut request);
        let answered = match catch(|| self.app.answer(request)) {
            Some(answer) => {
                let mut answer = pin!(answer);
                poll_fn(|context| match catch(|| answer.as_mut().poll(context)) {
                    Some(polled) => polled.map(Some),
                    None => Poll::Ready(None),
                })
                .await
            }
            None => None,
        };
        match answered {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "The app returned an error"
                );
                failed()
            }
            // The panic hook has reported the panic.
            None => failed(),
        }
    }

    /// Tells the app that it is to finish what it has.
    pub(crate) fn drain(&self) {
        self.context.set_draining(true);
    }

    /// The state for the next version.
    #[cfg(feature = "testing")]
    pub(crate) async fn hand_over(&self) -> Result<Vec<u8>, BoxError> {
        let hook = self.context.handover_hook();
        self.context.set_handed_over(true);
        hook.ok_or("it has nothing to hand over")?().await
    }

    /// Tells the app that the handover came to nothing.
    #[cfg(feature = "testing")]
    pub(crate) async fn go_on(&self) -> Result<(), BoxError> {
        self.context.set_draining(false);
        match self.context.take_back_hook() {
            Some(hook) => hook().await.map(drop),
            None => Ok(()),
        }
    }

    /// Tells the app that no earlier generation of it runs.
    #[cfg(feature = "testing")]
    pub(crate) fn alone(&self) {
        self.context.set_second(false);
    }

    /// Ends the app as the server does: its hooks run, one after the other. One that panics, or does not
    /// end in time, is no reason to leave out the others.
    pub(crate) async fn stop(&self) {
        let end = Instant::now() + STOP;
        while let Some(mut hook) = self.context.next_shutdown_hook() {
            let run = poll_fn(|context| {
                let polled = catch(|| hook.as_mut().poll(context));
                polled.unwrap_or(Poll::Ready(()))
            });
            if time::timeout_at(end, run).await.is_err() {
                tracing::warn!(timeout = ?STOP, "A shutdown hook did not end in time");
            }
        }
        self.context.clear_hooks();
    }
}

/// The response of an app, its body's type forgotten.
pub(crate) fn boxed<B>(response: http::Response<B>) -> Response
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| {
        body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            .map_err(Into::into)
            .boxed_unsync()
    })
}

/// Lends a request as one that crossed.
pub(crate) fn lend<R>(request: Request<Body>, work: impl FnOnce(native::Request<'_>) -> R) -> R {
    let (mut head, body) = request.into_parts();
    let info = head.extensions.remove::<RequestInfo>();
    let mut body = export(body, Here);
    let fields = HeaderFields::new(&head.headers);
    let lent = LentRequest {
        mount: "/",
        peer: info.as_ref().and_then(RequestInfo::peer),
        request_id: None,
        headers: fields.as_abi(),
        lay_out: None,
        body: &raw mut body,
        upgrade: std::ptr::null_mut(),
        protocol: None,
    };
    lent.lend(&head, |request| {
        // SAFETY: it was made just now.
        let mut request = unsafe { request.read() };
        if let Some(info) = &info {
            request.mount = abi::Slice::new(info.mount().as_bytes());
            request.original_path = abi::Slice::new(info.original_path().as_str().as_bytes());
        }
        // SAFETY: what it borrows is there, and the body is to be taken.
        work(native::Request::new(unsafe { RequestView::new(&request) }))
    })
}

/// How long the hooks of an app have, all together.
const STOP: Duration = Duration::from_secs(5);

fn failed() -> Response {
    let text = Full::from("500 Internal Server Error\n");
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// The path that a client would have asked for, with the mount.
fn original_path(mount: &str, path: Option<PathAndQuery>) -> PathAndQuery {
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if mount == "/" {
        return path;
    }
    format!("{mount}{path}").parse().unwrap_or(path)
}

/// Runs work on the thread that asks, in the runtime that it is in.
#[derive(Clone, Copy, Debug)]
struct Here;

impl Guard for Here {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        catch(work)
    }
}
