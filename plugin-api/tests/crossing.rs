//! The whole boundary in one process, both banks and no library between them: what Miri can look at
//! (`scripts/miri`). That it works between libraries is what the suite in `tests` is for.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(unsafe_code, reason = "a library that is loaded is trusted")]

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
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
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, HOST, UPGRADE},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use plugin_api::{
    __private::{Building, Entry, build, lib_header},
    BoxError, Context, Level,
    host::{
        self, App, CallError, Called, Callsite, Fields, InFlight, Init, Interest, Logger, Panic,
        Parent, Plugin, Target, Upgrade,
    },
    native,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::yield_now,
};
use tracing::{field, info, info_span};

#[path = "crossing/careless.rs"]
mod careless;

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

impl Entry for Native {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> Building {
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

impl Entry for Tower {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> Building {
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

/// Starts an app, as a host does that has loaded its library.
fn started<E: Entry>(previous_state: Option<&[u8]>) -> &'static App {
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

const LONG: Duration = Duration::from_secs(600);

/// Sends a request, as a host does, and waits for the head of its response.
fn ask(
    app: &'static App,
    path: &str,
    body: impl Into<Body>,
) -> Result<Response<host::Body>, CallError> {
    wait(respond(app, path, body))
}

async fn respond(
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

async fn called(
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

fn text(response: Response<host::Body>) -> String {
    let bytes = wait(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits, outside of tokio's runtimes. Both banks share one tokio here, and it refuses to block a thread
/// within a runtime, as the plugin's bank does to poll. A host has a tokio of its own.
fn wait<F: Future>(future: F) -> F::Output {
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

/// Keeps what comes of both apps, which are of one library here.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// These came, in this order, whatever came between them.
    fn has(&self, expected: &[&str]) {
        // A failed assertion logs.
        let lines = self.0.lock().unwrap().clone();
        let mut rest = lines.iter();
        for part in expected {
            let found = rest.any(|line| line.contains(part));
            assert!(found, "{part} is not among {lines:#?}");
        }
    }
}

/// The values, but for what tells where.
fn shown(fields: Fields<'_>) -> String {
    format!("{:?}", fields.collect::<Vec<_>>())
}

impl Logger for &'static Log {
    type Callsite = String;

    fn register(&self, callsite: &Callsite<'_>) -> (&'static String, Interest) {
        let name = format!("{:?}", callsite.name);
        (Box::leak(Box::new(name)), Interest::Always)
    }

    fn enabled(&self, _: &'static String, _: Parent) -> bool {
        true
    }

    fn event(&self, _: &'static String, entry: host::Entry<'_>) {
        let place = match entry.parent {
            Parent::Span(_) => " in a span",
            _ => "",
        };
        self.add(format!("event{place} {}", shown(entry.fields)));
    }

    fn new_span(&self, callsite: &'static String, entry: host::Entry<'_>) -> u64 {
        self.add(format!("new {callsite} {}", shown(entry.fields)));
        1
    }

    fn record(&self, _: u64, fields: Fields<'_>) {
        self.add(format!("record {}", shown(fields)));
    }

    fn follows_from(&self, _: u64, _: u64) {}

    fn clone_span(&self, _: u64) {}

    fn close_span(&self, _: u64) -> bool {
        self.add("close".to_owned());
        true
    }

    fn request_span(&self) -> Option<u64> {
        None
    }

    fn span_callsite(&self, _: u64) -> Option<&'static String> {
        None
    }

    fn panicked(&self, panic: &Panic<'_>) {
        // A failed assertion of this test comes here too.
        eprintln!("{} at {:?}", panic.message, panic.location);
        self.add(format!("panic {:?}", panic.message));
    }
}
