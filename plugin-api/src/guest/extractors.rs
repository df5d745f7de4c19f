//! A handler of axum's that takes what only a feature of this crate gives: its answer is a 500 that tells
//! the client, but not the author.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi;

/// Looks at the body of an answer of status 500, and says once that the feature `axum-info` is missing if
/// the body is what axum says of `ConnectInfo`.
pub(super) fn look_at(body: &abi::Body) {
    static TOLD: AtomicBool = AtomicBool::new(false);

    if !cfg!(feature = "axum-info")
        && asks_for_connect_info(body.data.as_ref())
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        tracing::error!(
            target: "plugin_api",
            "A handler takes axum's ConnectInfo, which is there only with the feature axum-info of plugin-api: \
             add it to the plugin's Cargo.toml"
        );
    }
}

fn asks_for_connect_info(text: &[u8]) -> bool {
    let missing =
        b"Missing request extension: Extension of type `axum::extract::connect_info::ConnectInfo<";
    text.starts_with(missing)
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
        assert!(asks_for_connect_info(&runtime.unwrap().block_on(text)));
        assert!(!asks_for_connect_info(
            b"Missing request extension: Extension of type `u8`"
        ));
    }
}
