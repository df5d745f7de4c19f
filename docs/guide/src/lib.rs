use std::path::PathBuf;

use axum::{Router, middleware, routing::get};
use plugin_api::{BoxError, Context};

mod cart;
mod client;
mod pages;
mod stock;

plugin_api::export_app!(app);

/// The settings of the app. An operator sets them in `[app.shop] config`; `examples/own_main.rs` takes them as options.
#[derive(clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The title of the shop
    #[arg(long, default_value = "Shop")]
    #[serde(default = "title")]
    title: String,

    /// The folder of static files
    #[arg(long)]
    public: PathBuf,
}

fn title() -> String {
    "Shop".to_owned()
}

/// Makes the app. The server calls this function.
pub async fn app(context: Context) -> Result<Router, BoxError> {
    let settings = context.config()?;
    stock::refresh(&context);
    let routes = router(settings).merge(cart::routes(&context)?);
    Ok(routes.layer(middleware::from_fn(pages::redirect_below_mount)))
}

/// Makes the routes that need no server.
pub fn router(settings: Settings) -> Router {
    let title = settings.title;
    Router::new()
        .route("/title", get(async move || title))
        .route("/client", get(client::address))
        .route("/report", get(client::report))
        .fallback_service(pages::files(&settings.public))
}
