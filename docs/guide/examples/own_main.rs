use std::net::SocketAddr;

use clap::Parser;
use plugin_api::BoxError;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Cli {
    #[arg(long, env = "SHOP_BIND", default_value = "127.0.0.1:8000")]
    bind: String,

    #[command(flatten)]
    settings: shop::Settings,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    dotenvy::dotenv().ok();
    tracing_subscriber::fmt::init();
    let Cli { bind, settings } = Cli::parse();
    let listener = TcpListener::bind(bind).await?;
    let router = shop::router(settings);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}
