//! The whole boundary in one process, both banks and no library between them: what Miri can look at
//! (`scripts/miri`). That it works between libraries is what the suite in `tests` is for.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(unsafe_code, reason = "a library that is loaded is trusted")]

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

#[path = "crossing/careless.rs"]
mod careless;
#[path = "crossing/driver.rs"]
mod driver;
#[path = "crossing/log.rs"]
mod log;

use driver::{LONG, ask, called, respond, started, text, wait};
use log::LOG;

#[test]
fn a_native_app_answers_logs_and_hands_over() {
    let app = started::<Native>(None);

    let answer = ask(app, "/", "").unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let many: Vec<_> = answer.headers().get_all(&X_MANY).iter().collect();
    assert_eq!(many, ["one", "two"]);
    assert_eq!(text(answer), r#"Some("here") ["1", "2"] None"#);

    let answer = ask(app, "/echo", "small").unwrap();
    assert_eq!(text(answer), "small");
    let pieces =
        ["a ", "large", " body"].map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from(text))));
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    let answer = ask(app, "/echo", body).unwrap();
    assert_eq!(text(answer), "a large body");

    let answer = ask(app, "/wait", "").unwrap();
    assert_eq!(text(answer), "waited");

    let answer = ask(app, "/stream", "").unwrap();
    let body = wait(answer.into_body().collect()).unwrap();
    assert_eq!(body.trailers().unwrap()[&X_MANY], "last");
    assert_eq!(body.to_bytes(), "one two three");

    for (path, expected) in [
        ("/error", CallError::Failed),
        ("/panic", CallError::Panicked),
    ] {
        assert_eq!(ask(app, path, "").unwrap_err(), expected);
    }

    let mut never = Box::pin(respond(app, "/never", ""));
    wait(poll_fn(|context| {
        assert!(never.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }));
    assert_eq!(app.in_flight(), 1);
    drop(never);
    assert!(DROPPED.load(Ordering::Relaxed), "its future is gone");
    assert_eq!(app.in_flight(), 0);

    let mut drained = Box::pin(respond(app, "/drained", ""));
    wait(poll_fn(|context| {
        assert!(drained.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }));
    app.drain();
    assert_eq!(text(wait(drained).unwrap()), "drained");

    let state = app.hand_over(LONG).unwrap();
    let next = started::<Native>(Some(&state));
    let answer = ask(next, "/", "").unwrap();
    assert_eq!(
        text(answer),
        r#"Some("here") ["1", "2"] Some("what it knew")"#
    );
    for app in [app, next] {
        assert!(!app.stop(LONG).timed_out);
    }
    LOG.has(&[
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
    let app = started::<Tower>(None);
    // What was met before is not made anew: the first requests are not as the later ones.
    for _ in 0..4 {
        let answer = ask(app, "/headers", "").unwrap();
        assert_eq!(
            text(answer),
            r#"{"host": "here", "x-many": "1", "x-many": "2"} "#
        );
        let answer = ask(app, "/headers", "body").unwrap();
        assert!(text(answer).ends_with(" body"));
    }
    assert_eq!(app.stop(LONG), host::Stopped::default());
}

#[test]
fn an_app_takes_a_connection_over() {
    let app = started::<Tower>(None);
    let (ours, theirs) = tokio::io::duplex(8);
    let (status, echoed) = wait(async {
        let in_flight = app.enter().unwrap();
        let upgrade = Upgrade::new(&in_flight, theirs, None);
        let request = Request::get("/upgrade")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "echo");
        let request = request.body(Body::empty()).unwrap();
        let response = called(in_flight, request, Some(upgrade)).await.unwrap();
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
    // The task that echoed may be about to end.
    assert!(!app.stop(LONG).timed_out);
}

/// A native app.
struct Native;

impl ExportedApp for Native {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> AppFuture {
        build(native_app, context)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<native::Response, BoxError>> + Send>>;

fn native_app(context: Context) -> native::App<impl Fn(native::Request<'_>) -> Answer> {
    let state = context
        .previous_state()
        .map(|state| String::from_utf8_lossy(state).into_owned());
    context.on_handover(|| "what it knew".to_owned());
    context.on_shutdown(async { info!("goodbye") });
    native::app(move |request: native::Request<'_>| handle(request, state.as_deref(), &context))
}

fn handle(mut request: native::Request<'_>, state: Option<&str>, context: &Context) -> Answer {
    let now = |response| Box::pin(ready(Ok(response)));
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
            now(
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
            // It is woken by another thread.
            tokio::spawn(yield_now()).await?;
            Ok(native::Response::text("waited"))
        }),
        "/stream" => {
            let frames = ["one ", "two ", "three"].map(|text| Frame::data(Bytes::from(text)));
            let trailers =
                HeaderMap::from_iter([(X_MANY.clone(), HeaderValue::from_static("last"))]);
            let frames = frames.into_iter().chain([Frame::trailers(trailers)]);
            let frames = stream::iter(frames.map(Ok::<_, BoxError>));
            now(native::Response::stream(StreamBody::new(frames)))
        }
        "/never" => Box::pin(async {
            let _tells = TellsOfItsDrop;
            pending().await
        }),
        "/error" => Box::pin(ready(Err("as asked".into()))),
        _ => panic!("as asked"),
    }
}

static X_MANY: HeaderName = HeaderName::from_static("x-many");

static DROPPED: AtomicBool = AtomicBool::new(false);

struct TellsOfItsDrop;

impl Drop for TellsOfItsDrop {
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

/// Echoes what comes on the connection.
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
