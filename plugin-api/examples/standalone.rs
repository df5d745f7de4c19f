//! An app as a program of its own. A real one has its app in its library, which is the plugin.

use axum::{Router, routing::get};
use plugin_api::Context;

plugin_api::main!(app);

fn app(context: Context) -> Router {
    context.on_shutdown(async { tracing::warn!("goodbye") });
    Router::new().route("/", get(hello))
}

async fn hello() -> &'static str {
    tracing::info!("an INFO message");
    log::warn!("a WARNING message");
    "hello world"
}
