//! The smallest app: five log lines and a greeting. It says nothing of where the lines go: that is
//! the server's.

#![forbid(unsafe_code)]

use axum::{Json, Router, routing::get};
use plugin_api::critical;
use tracing::{debug, error, info, warn};

plugin_api::export_app!(app, mount = "/");

fn app() -> Router {
    Router::new()
        .route("/", get(hello))
        .route("/quiet", get("hello world"))
}

async fn hello() -> Json<&'static str> {
    debug!("this is a DEBUG message");
    info!("this is an INFO message");
    warn!("this is a WARNING message");
    error!("this is an ERROR message");
    critical!("this is a CRITICAL message");
    Json("hello world")
}
