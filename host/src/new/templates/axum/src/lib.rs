//! The app. `host` loads it as a plugin; `src/main.rs` runs it as a program.

use axum::{Router, response::Html, routing::get};

plugin_api::export_app!(app);

/// Returns the app's routes.
pub fn app() -> Router {
    Router::new().route("/", get(hello))
}

async fn hello() -> Html<&'static str> {
    tracing::info!("somebody came in");
    Html("<!doctype html>\n<title>template-app</title>\n<h1>hello world</h1>\n")
}
