//! warp: `warp::service` turns a filter into a tower service, so no adapter is needed.

use std::convert::Infallible;

use plugin_api::Body;
use tower_service::Service;
use warp::{Filter, http::Request, reply::Response};

plugin_api::export_app!(app);

fn app() -> impl Service<Request<Body>, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync {
    warp::service(routes())
}

fn routes() -> impl Filter<Extract: warp::Reply, Error: Into<warp::Rejection>> + Clone + Send + Sync
{
    let hello = warp::path::end().map(|| {
        tracing::info!("somebody came in");
        "hello from warp"
    });
    let echo = warp::path("echo")
        .and(warp::post())
        .and(warp::body::bytes())
        .map(|body: warp::hyper::body::Bytes| http::Response::new(body));
    hello.or(echo)
}
