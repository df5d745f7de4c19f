//! rocket: its local client dispatches a request without a server. Bodies are read whole, both ways.

use std::{io, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use plugin_api::{Body, BoxError};
use rocket::{
    Data, data::ToByteUnit, get, http::Header, local::asynchronous::Client, post, routes,
};
use tower::{Service, service_fn};

plugin_api::export_app!(app);

async fn app() -> Result<
    impl Service<
        http::Request<Body>,
        Response = http::Response<Full<Bytes>>,
        Error = BoxError,
        Future: Send,
    > + Clone,
    BoxError,
> {
    let client = Arc::new(Client::untracked(build()).await?);
    Ok(service_fn(move |request| {
        answer(Arc::clone(&client), request)
    }))
}

async fn answer(
    client: Arc<Client>,
    request: http::Request<Body>,
) -> Result<http::Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let method = head
        .method
        .as_str()
        .parse()
        .map_err(|_| "rocket has no such method")?;
    let mut local = client.req(method, head.uri.to_string());
    for (name, value) in &head.headers {
        local.add_header(Header::new(
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        ));
    }
    let local = local.body(body.collect().await?.to_bytes());
    let response = local.dispatch().await;
    let mut answer = http::Response::builder().status(response.status().code);
    for header in response.headers().iter() {
        answer = answer.header(header.name().as_str(), header.value());
    }
    let body = response.into_bytes().await.unwrap_or_default();
    Ok(answer.body(Full::new(body.into()))?)
}

fn build() -> rocket::Rocket<rocket::Build> {
    rocket::build().mount("/", routes![hello, echo])
}

#[get("/")]
fn hello() -> &'static str {
    tracing::info!("somebody came in");
    "hello from rocket"
}

#[post("/echo", data = "<body>")]
async fn echo(body: Data<'_>) -> io::Result<Vec<u8>> {
    let body = body.open(64.mebibytes()).into_bytes().await?;
    Ok(body.into_inner())
}
