use std::net::SocketAddr;

use axum::{extract::ConnectInfo, http::StatusCode};
use tokio::task;

pub async fn address(ConnectInfo(address): ConnectInfo<SocketAddr>) -> String {
    address.ip().to_string()
}

/// Computes for a long time without an `.await`, so the work runs on a thread of its own.
pub async fn report() -> Result<String, StatusCode> {
    let sum = task::spawn_blocking(|| (0..10_000_000_u64).sum::<u64>());
    let sum = sum.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(sum.to_string())
}
