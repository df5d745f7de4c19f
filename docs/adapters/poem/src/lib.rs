//! poem: its types convert from and to those of the crate http, and bodies are streamed both ways.

use std::{convert::Infallible, io, sync::Arc};

use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Bytes;
use plugin_api::Body;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, Request, Route, get, handler, post,
    web::{LocalAddr, RemoteAddr},
};
use tower::{Service, service_fn};

plugin_api::export_app!(app);

fn app() -> impl Service<
    http::Request<Body>,
    Response = http::Response<BoxBody<Bytes, io::Error>>,
    Error = Infallible,
    Future: Send,
> + Clone {
    let endpoint = Arc::new(routes().into_endpoint().map_to_response());
    service_fn(move |request: http::Request<Body>| {
        let endpoint = Arc::clone(&endpoint);
        async move {
            let (parts, body) = request.into_parts();
            let scheme = http::uri::Scheme::HTTP;
            let parts = (parts, LocalAddr::default(), RemoteAddr::default(), scheme).into();
            let body = BoxBody::new(body.map_err(io::Error::other));
            let request = Request::from_parts(parts, body.into());
            Ok(endpoint.get_response(request).await.into())
        }
    })
}

fn routes() -> Route {
    Route::new().at("/", get(hello)).at("/echo", post(echo))
}

#[handler]
fn hello() -> &'static str {
    tracing::info!("somebody came in");
    "hello from poem"
}

#[handler]
fn echo(body: poem::Body) -> poem::Body {
    body
}
