//! The app. `host` loads it as a plugin; `src/main.rs` runs it as a program.
//!
//! The app is a native handler: it reads the server's own representation of a request, and uses no web framework.

use http::{HeaderValue, StatusCode};
use plugin_api::native::{Request, Response};

plugin_api::export_app!(app);

/// Returns the response to a request.
pub fn app(request: Request<'_>) -> Response {
    match (request.method(), request.path()) {
        ("GET" | "HEAD", "/") => hello(),
        (_, "/") => Response::new(StatusCode::METHOD_NOT_ALLOWED),
        _ => Response::new(StatusCode::NOT_FOUND),
    }
}

fn hello() -> Response {
    tracing::info!("somebody came in");
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    Response::bytes(
        html,
        "<!doctype html>\n<title>template-app</title>\n<h1>hello world</h1>\n",
    )
}
