//! The whole ABI in one process: the host side and the plugin side run in this program, and no library is loaded. So
//! Miri can check both sides (`scripts/miri`). The suite in `tests` checks the ABI between a host and real libraries.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(
    unsafe_code,
    reason = "opening a plugin is unsafe, because its code is trusted"
)]

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use axum::{
    Router,
    body::Body,
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{CONNECTION, HOST, UPGRADE},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use plugin_api::{
    __private::{AppFuture, ExportedApp, build},
    BoxError, Context,
    host::{self, CallError, Upgrade},
    native,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::yield_now,
};
use tracing::{field, info, info_span};

#[path = "crossing/driver.rs"]
mod driver;
#[path = "crossing/log.rs"]
mod log;
#[path = "crossing/unboxed.rs"]
mod unboxed;

use driver::{TIMEOUT, block_on, body_text, call, exchange, send, start};
use log::LOG;

#[test]
fn a_native_app_answers_logs_and_hands_over() {
    let app = start::<Native>(None);

    let answer = exchange(app, "/", "").unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let many: Vec<_> = answer.headers().get_all(&X_MANY).iter().collect();
    assert_eq!(many, ["one", "two"]);
    assert_eq!(body_text(answer), r#"Some("here") ["1", "2"] None"#);

    let answer = exchange(app, "/echo", "small").unwrap();
    assert_eq!(body_text(answer), "small");
    let pieces =
        ["a ", "large", " body"].map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from(text))));
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    let answer = exchange(app, "/echo", body).unwrap();
    assert_eq!(body_text(answer), "a large body");

    let answer = exchange(app, "/wait", "").unwrap();
    assert_eq!(body_text(answer), "waited");

    let answer = exchange(app, "/stream", "").unwrap();
    let body = block_on(answer.into_body().collect()).unwrap();
    assert_eq!(body.trailers().unwrap()[&X_MANY], "last");
    assert_eq!(body.to_bytes(), "one two three");

    for (path, expected) in [
        ("/error", CallError::Failed),
        ("/panic", CallError::Panicked),
    ] {
        assert_eq!(exchange(app, path, "").unwrap_err(), expected);
    }

    let mut never = Box::pin(send(app, "/never", ""));
    block_on(poll_fn(|context| {
        assert!(never.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }));
    assert_eq!(app.in_flight(), 1);
    drop(never);
    assert!(
        DROPPED.load(Ordering::Relaxed),
        "the app's future is dropped too"
    );
    assert_eq!(app.in_flight(), 0);

    let mut drained = Box::pin(send(app, "/drained", ""));
    block_on(poll_fn(|context| {
        assert!(drained.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }));
    app.drain();
    assert_eq!(body_text(block_on(drained).unwrap()), "drained");

    let state = app.hand_over(TIMEOUT).unwrap();
    let next = start::<Native>(Some(&state));
    let answer = exchange(next, "/", "").unwrap();
    assert_eq!(
        body_text(answer),
        r#"Some("here") ["1", "2"] Some("old state")"#
    );
    for app in [app, next] {
        assert!(!app.stop(TIMEOUT).timed_out);
    }
    LOG.assert_contains(&[
        r#"new "echo" []"#,
        r#"record [(0, U64(5))]"#,
        r#"event in a span [(0, Debug("echoed")), (1, U64(115))]"#,
        "close",
        r#"event [(0, Debug("The app returned an error")), (1, Error("as asked", []))]"#,
        r#"panic "as asked""#,
        r#"event [(0, Debug("goodbye"))]"#,
    ]);
}

#[test]
fn a_tower_service_gets_the_whole_request() {
    let app = start::<Tower>(None);
    // The first requests fill the caches of header fields, and later requests use them, so each request is sent four
    // times.
    for _ in 0..4 {
        let answer = exchange(app, "/headers", "").unwrap();
        assert_eq!(
            body_text(answer),
            r#"{"host": "here", "x-many": "1", "x-many": "2"} "#
        );
        let answer = exchange(app, "/headers", "body").unwrap();
        assert!(body_text(answer).ends_with(" body"));
    }
    assert_eq!(app.stop(TIMEOUT), host::Stopped::default());
}

#[test]
fn an_app_takes_a_connection_over() {
    let app = start::<Tower>(None);
    let (ours, theirs) = tokio::io::duplex(8);
    let (status, echoed) = block_on(async {
        let in_flight = app.enter().unwrap();
        let upgrade = Upgrade::new(&in_flight, theirs, None);
        let request = Request::get("/upgrade")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "echo");
        let request = request.body(Body::empty()).unwrap();
        let response = call(in_flight, request, Some(upgrade)).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(ours);
        let mut echoed = Vec::new();
        let write = async {
            writer.write_all(b"to be echoed").await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(write, async {
            reader.read_to_end(&mut echoed).await.unwrap()
        });
        (response.status(), echoed)
    });
    assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(echoed, b"to be echoed");
    // The task of the upgrade may still run, so the number of cancelled tasks is not checked.
    assert!(!app.stop(TIMEOUT).timed_out);
}

/// A native app.
struct Native;

impl ExportedApp for Native {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> AppFuture {
        build(native_app, context)
    }
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<native::Response, BoxError>> + Send>>;

/// Returns a handler that has one path for each way in which a request can be answered.
fn native_app(context: Context) -> native::App<impl Fn(native::Request<'_>) -> ResponseFuture> {
    let state = context
        .previous_state()
        .map(|state| String::from_utf8_lossy(state).into_owned());
    context.on_handover(|| "old state".to_owned());
    context.on_shutdown(async { info!("goodbye") });
    native::app(move |request: native::Request<'_>| handle(request, state.as_deref(), &context))
}

fn handle(
    mut request: native::Request<'_>,
    state: Option<&str>,
    context: &Context,
) -> ResponseFuture {
    let ready_response = |response| Box::pin(ready(Ok(response)));
    match request.path() {
        "/drained" => {
            let draining = context.draining();
            Box::pin(async {
                draining.await;
                Ok(native::Response::text("drained"))
            })
        }
        "/" => {
            let host = request.header(&HOST).map(String::from_utf8_lossy);
            let many: Vec<_> = request
                .headers()
                .filter(|(name, _)| *name == X_MANY)
                .map(|(_, value)| String::from_utf8_lossy(value))
                .collect();
            ready_response(
                native::Response::text(format!("{host:?} {many:?} {state:?}"))
                    .status(StatusCode::ACCEPTED)
                    .header(X_MANY.clone(), HeaderValue::from_static("one"))
                    .header(X_MANY.clone(), HeaderValue::from_static("two")),
            )
        }
        "/echo" => {
            let body = request.take_body();
            Box::pin(async {
                let span = info_span!("echo", size = field::Empty);
                let bytes = body.collect().await?.to_bytes();
                span.record("size", bytes.len());
                info!(parent: &span, first = bytes.first().copied(), "echoed");
                Ok(native::Response::text(bytes))
            })
        }
        "/wait" => Box::pin(async {
            for _ in 0..3 {
                yield_now().await;
            }
            // The spawned task runs on another thread, which then wakes this future.
            tokio::spawn(yield_now()).await?;
            Ok(native::Response::text("waited"))
        }),
        "/stream" => {
            let frames = ["one ", "two ", "three"].map(|text| Frame::data(Bytes::from(text)));
            let trailers =
                HeaderMap::from_iter([(X_MANY.clone(), HeaderValue::from_static("last"))]);
            let frames = frames.into_iter().chain([Frame::trailers(trailers)]);
            let frames = stream::iter(frames.map(Ok::<_, BoxError>));
            ready_response(native::Response::stream(StreamBody::new(frames)))
        }
        "/never" => Box::pin(async {
            let _guard = SetsDropped;
            pending().await
        }),
        "/error" => Box::pin(ready(Err("as asked".into()))),
        _ => panic!("as asked"),
    }
}

static X_MANY: HeaderName = HeaderName::from_static("x-many");

/// Whether the future of `/never` was dropped.
static DROPPED: AtomicBool = AtomicBool::new(false);

/// Sets [`DROPPED`] when it is dropped.
struct SetsDropped;

impl Drop for SetsDropped {
    fn drop(&mut self) {
        DROPPED.store(true, Ordering::Relaxed);
    }
}

/// An app that is a tower service.
struct Tower;

impl ExportedApp for Tower {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> AppFuture {
        build(router, context)
    }
}

fn router() -> Router {
    let headers = async |headers: HeaderMap, body: Bytes| {
        format!("{headers:?} {}", String::from_utf8_lossy(&body))
    };
    Router::new()
        .route("/headers", post(headers))
        .route("/upgrade", get(upgrade))
}

/// Upgrades the connection, and sends all bytes of the client back.
async fn upgrade(mut request: axum::extract::Request) -> impl IntoResponse {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers)
}
