//! An app as a program of its own. A real one has its app in its library, which is the plugin.

use std::time::Duration;

use axum::{Router, routing::get};
use plugin_api::{ConfigError, Context};

plugin_api::main!(app, name = "shop");

#[derive(serde::Deserialize)]
struct Config {
    #[serde(default = "closes_soon")]
    closes: String,
}

fn closes_soon() -> String {
    "soon".to_owned()
}

fn app(context: Context) -> Result<Router, ConfigError> {
    let Config { closes } = context.config()?;
    context.on_shutdown(async move {
        tracing::warn!("goodbye {closes}");
        if closes == "never" {
            std::thread::sleep(Duration::from_secs(3600));
        }
    });
    Ok(Router::new().route("/", get(hello)))
}

async fn hello() -> &'static str {
    tracing::info!("an INFO message");
    log::warn!("a WARNING message");
    "hello world"
}
