//! The twin of the benchmark plugins: a program that has the same handlers compiled in, served by hyper alone (`bare`)
//! or by `axum::serve` (`axum`).
//!
//! Arguments: `bare` or `axum`, and the number of threads. With `http2` as the third argument, `bare` serves HTTP/2.
//! Like the host, the twin prints its address, and ends on SIGTERM.

#![forbid(unsafe_code)]

use std::{convert::Infallible, env, error::Error, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, RepeatWith, StreamExt, Take};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [kind, threads, protocol @ ..] = &args[..] else {
        return Err("expected bare or axum, and a number of threads".into());
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads.parse()?)
        .enable_all()
        .build()?;
    let (is_axum, is_http2) = (kind == "axum", !protocol.is_empty());
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("Listening on http://{}", listener.local_addr()?);
        let mut stop = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            if is_axum {
                use axum::serve::ListenerExt;
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                axum::serve(listener, bench_axum::app()).await
            } else {
                serve(listener, is_http2).await
            }
        });
        stop.recv().await;
        Ok(())
    })
}

/// Serves the handlers with hyper alone.
async fn serve(listener: TcpListener, is_http2: bool) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let socket = TokioIo::new(stream);
        tokio::spawn(async move {
            if is_http2 {
                let http2 = http2::Builder::new(TokioExecutor::new());
                http2.serve_connection(socket, service_fn(answer)).await
            } else {
                let http1 = http1::Builder::new();
                http1.serve_connection(socket, service_fn(answer)).await
            }
        });
    }
}

type Body = Either<Full<Bytes>, StreamBody<Chunks>>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/quiet") => text(Bytes::from_static(b"hello world")),
        (&Method::POST, "/echo") => match request.into_body().collect().await {
            Ok(body) => reply("application/json", full(body.to_bytes())),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        (&Method::GET, "/large") => {
            reply("application/octet-stream", full(Bytes::from_static(&LARGE)))
        }
        (&Method::POST, "/upload") => {
            let (mut body, mut len) = (request.into_body(), 0);
            while let Some(Ok(frame)) = body.frame().await {
                len += frame.data_ref().map_or(0, Bytes::len);
            }
            text(len.to_string().into())
        }
        (&Method::GET, "/chunks") => chunks(),
        (&Method::GET, "/wait") => {
            sleep(Duration::from_millis(1)).await;
            text(Bytes::from_static(b"hello world"))
        }
        _ => status(StatusCode::NOT_FOUND),
    };
    Ok(response)
}

fn text(bytes: Bytes) -> Response<Body> {
    reply("text/plain; charset=utf-8", full(bytes))
}

fn reply(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn full(bytes: Bytes) -> Body {
    Either::Left(Full::new(bytes))
}

fn chunks() -> Response<Body> {
    let chunk = || Ok(Frame::data(Bytes::from_static(&LARGE[..4 << 10])));
    let chunks: Chunks = stream::repeat_with(chunk as fn() -> _).take(256);
    Response::new(Either::Right(StreamBody::new(chunks)))
}

type Chunks = Take<RepeatWith<fn() -> Result<Frame<Bytes>, Infallible>>>;

static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
