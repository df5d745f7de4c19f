//! Detects an axum handler whose `ConnectInfo` extractor fails because the app lacks the feature `axum-info` of this
//! crate. axum then sends a 500 with the cause to the client, but logs no error for the author. This module logs the
//! error.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi;

/// Logs an error if `body`, the body of a response with status 500, is axum's text about a missing `ConnectInfo`. Logs
/// this error only once, because every request to such a handler fails.
pub(super) fn check_body(body: &abi::Body) {
    static LOGGED: AtomicBool = AtomicBool::new(false);

    if !cfg!(feature = "axum-info")
        && is_missing_connect_info(body.data.as_ref())
        && !LOGGED.swap(true, Ordering::Relaxed)
    {
        tracing::error!(
            target: "plugin_api",
            "A handler takes axum's ConnectInfo, which is there only with the feature axum-info of plugin-api: \
             add it to the plugin's Cargo.toml"
        );
    }
}

/// Returns whether `text` is axum's text about a missing `ConnectInfo`. A test compares the text with the axum version
/// in use.
fn is_missing_connect_info(text: &[u8]) -> bool {
    let beginning =
        b"Missing request extension: Extension of type `axum::extract::connect_info::ConnectInfo<";
    text.starts_with(beginning)
}

#[cfg(all(test, feature = "axum-info"))]
mod tests {
    use axum::{
        extract::{ConnectInfo, FromRequestParts},
        http::Request,
        response::IntoResponse,
    };
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn what_axum_says_of_connect_info_is_known() {
        let text = async {
            let (mut parts, ()) = Request::new(()).into_parts();
            let rejection = ConnectInfo::<()>::from_request_parts(&mut parts, &()).await;
            let response = rejection.unwrap_err().into_response();
            response.into_body().collect().await.unwrap().to_bytes()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        assert!(is_missing_connect_info(&runtime.unwrap().block_on(text)));
        assert!(!is_missing_connect_info(
            b"Missing request extension: Extension of type `u8`"
        ));
    }
}
