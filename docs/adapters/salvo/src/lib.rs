//! salvo: its service takes the parts of a request of the crate http, and bodies are streamed both ways.

use std::{convert::Infallible, sync::Arc};

use http_body_util::BodyExt;
use plugin_api::Body;
use salvo::{
    Router, Service as App,
    conn::SocketAddr,
    handler,
    http::{ReqBody, Request, ResBody, Response, uri::Scheme},
};
use tower::{Service, service_fn};

plugin_api::export_app!(app);

fn app() -> impl Service<
    http::Request<Body>,
    Response = http::Response<ResBody>,
    Error = Infallible,
    Future: Send,
> + Clone {
    let app = Arc::new(App::new(routes()));
    service_fn(move |request: http::Request<Body>| {
        let unknown = SocketAddr::Unknown;
        let app = app.hyper_handler(unknown.clone(), unknown, Scheme::HTTP, None, None);
        async move {
            let request = request.map(|body| ReqBody::Boxed {
                inner: Box::pin(body.map_err(Into::into)),
                fusewire: None,
            });
            let request = Request::from_hyper(request, Scheme::HTTP);
            Ok(app.handle(request).await.into_hyper())
        }
    })
}

fn routes() -> Router {
    Router::new()
        .get(hello)
        .push(Router::with_path("echo").post(echo))
}

#[handler]
async fn hello() -> &'static str {
    tracing::info!("somebody came in");
    "hello from salvo"
}

#[handler]
async fn echo(request: &mut Request, response: &mut Response) {
    if let Ok(body) = request.payload_with_max_size(64 << 20).await {
        response.body(body.clone());
    }
}
