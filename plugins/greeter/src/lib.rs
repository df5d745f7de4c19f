//! A gRPC service with tonic: one call of each kind, as defined in `proto/greeter.proto`.

#![forbid(unsafe_code)]

use std::pin::Pin;

use axum::{
    Router,
    extract::{OriginalUri, Request},
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tonic::{Response, Status, Streaming, service::Routes};
use tower::util::MapRequest;
use tracing::info;

use self::proto::{
    Greeting, Name, Often,
    greeter_server::{Greeter, GreeterServer},
};

#[allow(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod proto {
    tonic::include_proto!("greeter");
}

// A gRPC client calls `/greeter.Greeter/Greet` and cannot add a prefix, so the mount is the name of the service.
plugin_api::export_app!(app, mount = "/greeter.Greeter");

fn app() -> Router {
    let service = Routes::new(GreeterServer::new(GreeterService)).into_axum_router();
    // The app sees paths below its mount, but tonic routes by the whole path, so restore the whole path.
    Router::new().fallback_service(MapRequest::new(service, restore_path))
}

/// Replaces the path of a request by the path that the client has sent.
fn restore_path(mut request: Request) -> Request {
    if let Some(OriginalUri(original)) = request.extensions().get() {
        *request.uri_mut() = original.clone();
    }
    request
}

/// Implements the gRPC service: returns greetings for names, and an error for an empty name.
struct GreeterService;

type Greetings = Pin<Box<dyn Stream<Item = Result<Greeting, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for GreeterService {
    type GreetOftenStream = Greetings;
    type GreetEachStream = Greetings;

    async fn greet(&self, request: tonic::Request<Name>) -> Result<Response<Greeting>, Status> {
        greeting(&request.into_inner().name).map(Response::new)
    }

    async fn greet_often(
        &self,
        request: tonic::Request<Often>,
    ) -> Result<Response<Greetings>, Status> {
        let Often { name, times } = request.into_inner();
        let greetings = (0..times).map(move |_| greeting(&name));
        Ok(Response::new(stream::iter(greetings).boxed()))
    }

    async fn greet_all(
        &self,
        request: tonic::Request<Streaming<Name>>,
    ) -> Result<Response<Greeting>, Status> {
        let names: Vec<_> = request
            .into_inner()
            .map_ok(|name| name.name)
            .try_collect()
            .await?;
        info!(names = names.len(), "Greeting all");
        greeting(&names.join(" and ")).map(Response::new)
    }

    async fn greet_each(
        &self,
        request: tonic::Request<Streaming<Name>>,
    ) -> Result<Response<Greetings>, Status> {
        let greetings = request.into_inner().map(|name| greeting(&name?.name));
        Ok(Response::new(greetings.boxed()))
    }
}

/// Returns the greeting for `name`, or an error if `name` is empty.
fn greeting(name: &str) -> Result<Greeting, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("nobody to greet"));
    }
    let text = format!("hello {name}");
    Ok(Greeting { text })
}
