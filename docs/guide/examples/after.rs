use axum::{Router, routing::get};

plugin_api::export_app!(app);

pub async fn app() -> Router {
    Router::new().route("/", get(index))
}

async fn index() -> &'static str {
    tracing::info!("somebody came in");
    "open"
}
