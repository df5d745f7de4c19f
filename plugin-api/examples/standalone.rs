//! An app as a program of its own. A real one has its app in its library, which is the plugin.

use std::time::Duration;

use axum::{Router, extract::Request, response::IntoResponse, routing::get};
use http::{
    StatusCode,
    header::{CONNECTION, UPGRADE},
};
use hyper_util::rt::TokioIo;
use plugin_api::{ConfigError, Context};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    let talk = async move |request| talk(request, context).await;
    Ok(Router::new()
        .route("/", get(hello))
        .route("/talk", get(talk)))
}

/// Takes the connection over, and says goodbye to its client before the program ends.
async fn talk(mut request: Request, context: Context) -> impl IntoResponse {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut client = TokioIo::new(upgraded);
        context.draining().await;
        let mut answer = [0; 3];
        if client.write_all(b"goodbye").await.is_ok()
            && client.read_exact(&mut answer).await.is_ok()
        {
            tracing::warn!("the client has heard");
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "talk")];
    (StatusCode::SWITCHING_PROTOCOLS, headers)
}

async fn hello() -> &'static str {
    tracing::info!("an INFO message");
    log::warn!("a WARNING message");
    "hello world"
}
