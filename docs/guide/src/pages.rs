use std::path::Path;

use axum::{
    Extension,
    extract::Request,
    http::{HeaderValue, header::LOCATION},
    middleware::Next,
    response::Response,
};
use plugin_api::RequestInfo;
use tower_http::services::ServeDir;

pub fn files(folder: &Path) -> ServeDir {
    ServeDir::new(folder)
}

/// Puts the mount in front of redirects to a path of this app.
pub async fn redirect_below_mount(
    Extension(info): Extension<RequestInfo>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let location = response.headers().get(LOCATION);
    let path = location.and_then(|location| location.to_str().ok());
    let path = path.filter(|path| path.starts_with('/') && !path.starts_with("//"));
    let below = path.map(|path| HeaderValue::try_from(info.below_mount(path)));
    if let Some(Ok(below)) = below {
        response.headers_mut().insert(LOCATION, below);
    }
    response
}
