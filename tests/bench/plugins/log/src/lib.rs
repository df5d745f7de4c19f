//! Runs the cases of `scripts/bench log` in a plugin, and answers with the time of each in nanoseconds.

#![forbid(unsafe_code)]

use axum::{Router, extract::Path, routing::get};

#[path = "../../../src/log_cases.rs"]
mod log_cases;

plugin_api::export_app!(app, mount = "/");

fn app() -> Router {
    Router::new().route("/{case}/{count}", get(run))
}

async fn run(Path((case, count)): Path<(String, u64)>) -> String {
    let case = log_cases::CASES.iter().find(|other| other.name == case);
    case.map_or_else(String::new, |case| (case.run)(count).as_nanos().to_string())
}
