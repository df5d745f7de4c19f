//! The handlers for the cases of `scripts/bench http`, as a native handler.

#![forbid(unsafe_code)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, Either},
    stream,
};
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use plugin_api::{
    Body,
    native::{self, Request, Response},
};
use tokio::time::sleep;

plugin_api::export_app!(app, mount = "/");

fn app() -> native::App<impl Fn(Request<'_>) -> Answer> {
    native::app(answer)
}

/// A response that is ready at once, or a future.
type Answer = Either<Ready<Response>, BoxFuture<'static, Response>>;

fn answer(mut request: Request<'_>) -> Answer {
    let response = match (request.method(), request.path()) {
        ("GET", "/quiet") => Response::text("hello world"),
        ("POST", "/echo") => return Either::Right(Box::pin(echo(request.take_body()))),
        ("GET", "/large") => reply("application/octet-stream", Bytes::from_static(&LARGE)),
        ("POST", "/upload") => return Either::Right(Box::pin(upload(request.take_body()))),
        ("GET", "/chunks") => chunks(),
        ("GET", "/wait") => return Either::Right(Box::pin(wait())),
        _ => Response::new(StatusCode::NOT_FOUND),
    };
    Either::Left(ready(response))
}

async fn echo(body: Body) -> Response {
    match body.collect().await {
        Ok(body) => reply("application/json", body.to_bytes()),
        Err(_) => Response::new(StatusCode::BAD_REQUEST),
    }
}

/// Reads the body frame by frame, and answers with its length.
async fn upload(mut body: Body) -> Response {
    let mut len = 0;
    while let Some(Ok(frame)) = body.frame().await {
        len += frame.data_ref().map_or(0, Bytes::len);
    }
    Response::text(len.to_string())
}

fn chunks() -> Response {
    let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&LARGE[..4 << 10])));
    let chunks = stream::repeat_with(chunk).take(256);
    Response::stream(StreamBody::new(chunks))
}

async fn wait() -> Response {
    sleep(Duration::from_millis(1)).await;
    Response::text("hello world")
}

fn reply(content_type: &'static str, bytes: Bytes) -> Response {
    Response::bytes(HeaderValue::from_static(content_type), bytes)
}

static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
