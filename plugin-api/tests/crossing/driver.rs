//! The host side of these tests: starts an app, sends requests, and waits for their responses.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{self, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, header::HOST};
use http_body_util::BodyExt;
use plugin_api::{
    __private::{ExportedApp, lib_header},
    Level,
    host::{self, App, CallError, CallInfo, CallResult, InFlight, Init, Plugin, Upgrade},
};

use super::{X_MANY, log::LOG};

/// Starts an app, as a host does after it has loaded the app's library.
pub(super) fn start<E: ExportedApp>(previous_state: Option<&[u8]>) -> &'static App {
    let header = Box::leak(Box::new(lib_header::<E>()));
    // SAFETY: `lib_header` of this program's own plugin-api has created the header, and the header is never freed.
    let plugin = unsafe { Plugin::from_header(header) }.unwrap();
    plugin.set_level(Level::Info);
    let init = Init {
        name: "crossing",
        mount: "/",
        config: None,
        previous_state,
        thread_name: "crossing",
        generation: 1,
        timeout: TIMEOUT,
        worker_threads: 1,
    };
    plugin.init(&LOG, &init).unwrap()
}

/// A limit that no step reaches, also under Miri.
pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

/// Sends a `POST` request, and blocks until the head of its response has arrived.
pub(super) fn exchange(
    app: &'static App,
    path: &str,
    body: impl Into<Body>,
) -> Result<Response<host::Body>, CallError> {
    block_on(send(app, path, body))
}

/// Sends a `POST` request with three header fields, and returns the response or the reason why there is none.
pub(super) async fn send(
    app: &'static App,
    path: &str,
    body: impl Into<Body>,
) -> Result<Response<host::Body>, CallError> {
    let request = Request::post(path)
        .header(HOST, "here")
        .header(&X_MANY, "1")
        .header(&X_MANY, "2");
    let request = request.body(body.into()).unwrap();
    call(app.enter().unwrap(), request, None).await
}

/// Passes a request to an app across the ABI, and waits for the head of the response.
pub(super) async fn call(
    in_flight: InFlight,
    request: Request<Body>,
    upgrade: Option<Upgrade>,
) -> Result<Response<host::Body>, CallError> {
    let (mut head, body) = request.into_parts();
    let info = CallInfo {
        mount: "/",
        peer: None,
        request_id: Some(b"id"),
        upgrade,
    };
    let mut request = Some((in_flight, body, info));
    let mut response = Response::new(());
    let called = poll_fn(|context| {
        let (in_flight, body, info) = request.take().unwrap();
        Poll::Ready(in_flight.call(&mut head, Some(body), info, context, &mut response))
    });
    let body = match called.await {
        CallResult::Answered(body) => body?,
        CallResult::Pending(mut call) => {
            poll_fn(|context| call.poll_response(context, &mut response)).await?
        }
    };
    Ok(response.map(|()| body))
}

/// Blocks until the whole body has arrived, and returns it as text.
pub(super) fn body_text(response: Response<host::Body>) -> String {
    let bytes = block_on(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Blocks this thread until the future is ready, without a tokio runtime. The plugin side polls the app inside
/// `Handle::block_on`, which panics on a thread that is already within a runtime. Here both sides share one copy of
/// tokio. A real host has its own copy, of which the plugin's copy knows nothing.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A waker that unparks a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
