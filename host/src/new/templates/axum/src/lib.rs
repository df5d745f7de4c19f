//! The app: the server loads it as a plugin, and `src/main.rs` runs it alone.

use axum::{Router, response::Html, routing::get};

plugin_api::export_app!(app);

/// The app's routes.
pub fn app() -> Router {
    Router::new().route("/", get(hello))
}

async fn hello() -> Html<&'static str> {
    tracing::info!("somebody came in");
    Html("<!doctype html>\n<title>template-app</title>\n<h1>hello world</h1>\n")
}
