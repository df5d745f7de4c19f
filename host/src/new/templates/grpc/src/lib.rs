//! The app: a gRPC service, described by `proto/greeter.proto`.

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

/// The service.
pub fn app() -> Router {
    let service = Routes::new(GreeterServer::new(Greetings)).into_axum_router();
    // The service looks at the whole path, of which the server took the mount.
    Router::new().fallback_service(MapRequest::new(service, with_mount))
}

fn with_mount(mut request: Request) -> Request {
    if let Some(OriginalUri(whole)) = request.extensions().get() {
        *request.uri_mut() = whole.clone();
    }
    request
}

struct Greetings;

#[tonic::async_trait]
impl Greeter for Greetings {
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
