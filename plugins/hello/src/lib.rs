//! The smallest app: five log lines and a greeting. The app does not set up logging, because the
//! server decides where the lines go.
//!
//! The app uses no framework either: a native handler reads the server's request directly. The
//! other examples use axum.

#![forbid(unsafe_code)]

use http::{HeaderValue, StatusCode};
use plugin_api::{
    critical,
    native::{Request, Response},
};
use tracing::{debug, error, info, warn};

plugin_api::export_app!(answer, mount = "/");

fn answer(request: Request<'_>) -> Response {
    match (request.method(), request.path()) {
        ("GET" | "HEAD", "/") => hello(),
        ("GET" | "HEAD", "/quiet") => Response::text("hello world"),
        (_, "/" | "/quiet") => Response::new(StatusCode::METHOD_NOT_ALLOWED),
        _ => Response::new(StatusCode::NOT_FOUND),
    }
}

fn hello() -> Response {
    debug!("this is a DEBUG message");
    info!("this is an INFO message");
    warn!("this is a WARNING message");
    error!("this is an ERROR message");
    critical!("this is a CRITICAL message");
    let json = HeaderValue::from_static("application/json");
    Response::bytes(json, "\"hello world\"")
}
