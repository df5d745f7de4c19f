//! Pages of every kind that `host dev` puts its script into.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use futures_util::{StreamExt, stream};
use tower_http::compression::CompressionLayer;

plugin_api::export_app!(app);

/// The app's routes.
pub fn app() -> Router {
    Router::new()
        .route("/compressed", get(async || page(&"compressed ".repeat(1000))))
        .layer(CompressionLayer::new())
        .route("/", get(async || page("plain")))
        .route("/streamed", get(streamed))
        .route("/strict", get(strict))
        .route("/spa", get(spa))
        .route("/spa/{*rest}", get(spa))
        .route("/panic", get(panics))
}

fn page(text: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html><head><title>page</title></head><body><h1>version 1</h1><p>{text}</p></body></html>"
    ))
}

/// A page without an end: the second half comes when nobody waits any more.
async fn streamed() -> impl IntoResponse {
    let start = stream::iter([Ok::<_, Infallible>("<!doctype html><title>page</title><h1>version 1</h1>")]);
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok("<p>the end</p>")
    });
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (html, Body::from_stream(start.chain(end.boxed())))
}

async fn strict() -> impl IntoResponse {
    let policy = "default-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], page("strict"))
}

/// A single-page app: it changes its address by itself.
async fn spa() -> Html<&'static str> {
    Html(
        "<!doctype html><title>page</title><h1>version 1</h1><script>
        if (location.pathname.endsWith('/spa')) history.pushState({}, '', 'spa/inner');
        document.title = location.pathname;</script>",
    )
}

async fn panics() -> &'static str {
    tracing::warn!("nearly out of bread");
    panic!("out of bread")
}
