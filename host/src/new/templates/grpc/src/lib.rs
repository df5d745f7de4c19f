//! The app: a gRPC service. `proto/greeter.proto` defines its methods and messages.

use axum::{
    Router,
    extract::{OriginalUri, Request},
};
use tonic::{Response, Status, service::Routes};
use tower::util::MapRequest;

use self::proto::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};

/// The code that `build.rs` generates from the `.proto` file.
pub mod proto {
    tonic::include_proto!("greeter");
}

// A gRPC client calls /PACKAGE.SERVICE/METHOD, so the mount is the service's name.
plugin_api::export_app!(app, mount = "/greeter.Greeter");

/// Returns the service as an axum router.
pub fn app() -> Router {
    let service = Routes::new(GreeterServer::new(GreeterService)).into_axum_router();
    // The server removes the mount from the path, but the service matches the full path.
    Router::new().fallback_service(MapRequest::new(service, restore_full_path))
}

/// Replaces the request's URI by the URI that the client sent.
fn restore_full_path(mut request: Request) -> Request {
    if let Some(OriginalUri(uri)) = request.extensions().get() {
        *request.uri_mut() = uri.clone();
    }
    request
}

struct GreeterService;

#[tonic::async_trait]
impl Greeter for GreeterService {
    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let HelloRequest { name } = request.into_inner();
        if name.is_empty() {
            return Err(Status::invalid_argument("there is nobody to greet"));
        }
        tracing::info!(name, "somebody came in");
        let message = format!("hello {name}");
        Ok(Response::new(HelloReply { message }))
    }
}
