//! The module `plugin_api::testing`, which runs an app in a test.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    http::{Request, StatusCode},
    routing::{get, post},
};
use http_body_util::BodyExt;
use plugin_api::{BoxError, Context, Level, RequestInfo, testing};
use tokio::{sync::oneshot, time::sleep};

#[derive(serde::Deserialize)]
struct Settings {
    greeting: String,
}

fn app(context: Context) -> Result<Router, BoxError> {
    let Settings { greeting } = context.config()?;
    context.on_shutdown(async { tracing::info!("goodbye") });
    Ok(Router::new()
        .route("/", get(async || greeting))
        .route("/echo", post(async |body: Body| body))
        .route("/panic", get(async || -> () { panic!("as asked") }))
        .route("/task", get(task))
        .route("/where", get(paths)))
}

/// Logs from a spawned task, after a timer.
async fn task() {
    let task = tokio::spawn(async {
        sleep(Duration::from_millis(1)).await;
        log::warn!(target: "elsewhere", "by log");
        plugin_api::critical!(code = 7, "by tracing");
    });
    task.await.unwrap();
}

/// Answers with the mount and the original path of the request.
async fn paths(Extension(info): Extension<RequestInfo>) -> String {
    format!("{} {}", info.mount(), info.original_path())
}

/// Starts the app with the name "shop" and the greeting "hello".
async fn start_shop() -> testing::App {
    let config = serde_json::json!({ "greeting": "hello" });
    let setup = testing::Setup::new()
        .name("shop")
        .mount("/shop")
        .config(&config);
    setup.start(app).await.unwrap()
}

#[tokio::test]
async fn an_app_answers_without_a_server() {
    let app = start_shop().await;
    assert_eq!(app.get("/").await.unwrap().body(), "hello");
    assert_eq!(
        app.get("/where?a").await.unwrap().body(),
        "/shop /shop/where?a"
    );
    let request = Request::post("/echo").body(Body::from("sent")).unwrap();
    let echo = app.send(request).await.into_body().collect().await.unwrap();
    assert_eq!(echo.to_bytes(), "sent");
}

#[tokio::test]
async fn a_panic_is_a_500() {
    let app = start_shop().await;
    assert_eq!(
        app.get("/panic").await.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(app.get("/").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn what_the_app_logs_is_at_hand() {
    let app = start_shop().await;
    app.get("/task").await.unwrap();
    let events = app.stop().await;
    let logged: Vec<_> = events
        .iter()
        .map(|event| (event.level, &*event.target, &*event.message))
        .collect();
    assert_eq!(
        logged,
        [
            (Level::Warn, "elsewhere", "by log"),
            (Level::Critical, "testing", "by tracing"),
            (Level::Info, "testing", "goodbye"),
        ]
    );
    assert_eq!(events[1].field("code"), Some("7"));
}

#[tokio::test]
async fn an_app_that_does_not_start_says_why() {
    for (config, reason) in [
        (serde_json::json!({}), "missing field `greeting`"),
        (
            serde_json::json!({ "greeting": 5 }),
            "greeting: invalid type: integer `5`, expected a string",
        ),
    ] {
        let setup = testing::Setup::new().config(&config);
        let error = setup.start(app).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the configuration of \"app\" is not what the app expects: {reason}")
        );
    }
}

#[tokio::test]
async fn a_version_is_that_of_the_package_and_state_is_handed_over() {
    // The state is the state of the previous version and "+1".
    fn count_versions(context: Context) -> Router {
        let before = context.previous_state().map(<[u8]>::to_vec);
        let version = context.version();
        context.on_handover(move || [before.as_deref().unwrap_or_default(), b"+1"].concat());
        Router::new().route("/", get(async move || version))
    }
    let app = testing::App::start(count_versions).await.unwrap();
    assert_eq!(
        app.get("/").await.unwrap().body(),
        env!("CARGO_PKG_VERSION")
    );
    let state = app.hand_over().await.unwrap();
    app.stop().await;

    let setup = testing::Setup::new().version("2.0.0").previous_state(state);
    let app = setup.start(count_versions).await.unwrap();
    assert_eq!(app.get("/").await.unwrap().body(), "2.0.0");
    assert_eq!(app.hand_over().await.unwrap(), b"+1+1");
}

#[tokio::test]
async fn a_hook_that_panics_keeps_no_other_from_running() {
    let app = testing::App::start(|context: Context| {
        context.on_shutdown(async { panic!("as asked") });
        context.on_shutdown(async { tracing::info!("goodbye") });
        Router::new()
    });
    let events = app.await.unwrap().stop().await;
    assert_eq!(events.last().unwrap().message, "goodbye");
}

#[tokio::test]
async fn a_hook_may_add_another() {
    let app = testing::App::start(|context: Context| {
        let inner = context.clone();
        context.on_shutdown(async move {
            inner.on_shutdown(async { tracing::info!("goodbye again") });
        });
        Router::new()
    });
    let events = app.await.unwrap().stop().await;
    assert_eq!(events.last().unwrap().message, "goodbye again");
}

#[tokio::test]
async fn an_app_that_goes_on_takes_back_what_it_let_go_of() {
    let app = testing::App::start(|context: Context| {
        context.on_handover(|| tracing::info!("let go"));
        context.on_handover_failed(async || {
            tracing::info!("taken back");
            Ok::<_, BoxError>(())
        });
        Router::new()
    });
    let app = app.await.unwrap();
    // No handover has happened yet, so this does not call the hook.
    app.go_on().await.unwrap();
    assert_eq!(app.hand_over().await.unwrap(), b"");
    app.go_on().await.unwrap();
    app.go_on().await.unwrap();
    let messages: Vec<_> = app
        .events()
        .into_iter()
        .map(|event| event.message)
        .collect();
    assert_eq!(messages, ["let go", "taken back"]);
}

#[tokio::test]
async fn an_app_without_a_handover_hook_takes_nothing_back() {
    let app = testing::App::start(|context: Context| {
        context.on_handover_failed(async || {
            tracing::info!("taken back");
            Ok::<_, BoxError>(())
        });
        Router::new()
    });
    let app = app.await.unwrap();
    app.hand_over().await.unwrap_err();
    app.go_on().await.unwrap();
    assert!(app.stop().await.is_empty());
}

#[tokio::test]
async fn an_app_knows_whether_the_version_before_has_ended_and_whether_it_is_to_end_itself() {
    let start = |setup: testing::Setup| async {
        let (sender, context) = oneshot::channel();
        let app = setup.start(move |context: Context| {
            let _ = sender.send(context);
            Router::new()
        });
        (app.await.unwrap(), context.await.unwrap())
    };
    let (_app, context) = start(testing::Setup::new()).await;
    context.previous_ended().await;

    let (app, context) = start(testing::Setup::new().beside_previous()).await;
    let mut ended = pin!(context.previous_ended());
    let is_ready = poll_fn(|task| Poll::Ready(ended.as_mut().poll(task).is_ready()));
    assert!(!is_ready.await);
    app.previous_ended();
    ended.await;

    assert!(!context.is_draining());
    app.drain();
    assert!(context.is_draining());
}

#[test]
#[should_panic(expected = "a configuration is a table")]
fn a_configuration_that_is_no_table_is_refused() {
    let _ = testing::Setup::new().config(&1);
}
