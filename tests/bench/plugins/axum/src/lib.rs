//! The handlers for the cases of `scripts/bench http`, as an axum app.

#![forbid(unsafe_code)]

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderName, header::CONTENT_TYPE},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::time::sleep;

plugin_api::export_app!(app, mount = "/");

/// Returns the app. The twin serves the same app with `axum::serve`.
pub fn app() -> Router {
    Router::new()
        .route("/quiet", get(async || "hello world"))
        .route("/echo", post(echo))
        .route("/large", get(async || &LARGE[..]))
        .route("/upload", post(upload))
        .route("/chunks", get(chunks))
        .route("/wait", get(wait))
}

async fn echo(body: Bytes) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(CONTENT_TYPE, "application/json")], body)
}

/// Reads the body frame by frame, and answers with its length.
async fn upload(mut body: Body) -> String {
    let mut len = 0;
    while let Some(Ok(frame)) = body.frame().await {
        len += frame.data_ref().map_or(0, Bytes::len);
    }
    len.to_string()
}

async fn chunks() -> Body {
    let chunk = Ok::<_, Infallible>(Bytes::from_static(&LARGE[..4 << 10]));
    Body::from_stream(stream::repeat(chunk).take(256))
}

async fn wait() -> &'static str {
    sleep(Duration::from_millis(1)).await;
    "hello world"
}

static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
