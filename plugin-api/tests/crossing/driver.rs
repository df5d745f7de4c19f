//! The host of these tests: starts an app, sends requests, and waits for their responses.

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
    host::{self, App, CallError, Called, InFlight, Init, Plugin, Target, Upgrade},
};

use super::{X_MANY, log::LOG};

/// Starts an app, as a host does that has loaded its library.
pub(super) fn started<E: ExportedApp>(previous_state: Option<&[u8]>) -> &'static App {
    let header = Box::leak(Box::new(lib_header::<E>()));
    // SAFETY: it is of this program.
    let plugin = unsafe { Plugin::from_header(header) }.unwrap();
    plugin.set_level(Level::Info);
    let init = Init {
        name: "crossing",
        mount: "/",
        config: None,
        previous_state,
        thread_name: "crossing",
        generation: 1,
        timeout: LONG,
        worker_threads: 1,
    };
    plugin.init(&LOG, &init).unwrap()
}

pub(super) const LONG: Duration = Duration::from_secs(600);

/// Sends a request, as a host does, and waits for the head of its response.
pub(super) fn ask(
    app: &'static App,
    path: &str,
    body: impl Into<Body>,
) -> Result<Response<host::Body>, CallError> {
    wait(respond(app, path, body))
}

pub(super) async fn respond(
    app: &'static App,
    path: &str,
    body: impl Into<Body>,
) -> Result<Response<host::Body>, CallError> {
    let request = Request::post(path)
        .header(HOST, "here")
        .header(&X_MANY, "1")
        .header(&X_MANY, "2");
    let request = request.body(body.into()).unwrap();
    called(app.enter().unwrap(), request, None).await
}

pub(super) async fn called(
    in_flight: InFlight,
    request: Request<Body>,
    upgrade: Option<Upgrade>,
) -> Result<Response<host::Body>, CallError> {
    let (mut head, body) = request.into_parts();
    let target = Target {
        mount: "/",
        peer: None,
        request_id: Some(b"id"),
        upgrade,
    };
    let mut request = Some((in_flight, body, target));
    let mut response = Response::new(());
    let called = poll_fn(|context| {
        let (in_flight, body, target) = request.take().unwrap();
        Poll::Ready(in_flight.call(&mut head, Some(body), target, context, &mut response))
    });
    let body = match called.await {
        Called::Answered(body) => body?,
        Called::Pending(mut call) => {
            poll_fn(|context| call.poll_response(context, &mut response)).await?
        }
    };
    Ok(response.map(|()| body))
}

pub(super) fn text(response: Response<host::Body>) -> String {
    let bytes = wait(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits, outside of tokio's runtimes. Both banks share one tokio here, and it refuses to block a thread
/// within a runtime, as the plugin's bank does to poll. A host has a tokio of its own.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
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

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
