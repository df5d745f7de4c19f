//! actix-web: an app stays on the thread that made it. The plugin starts threads with one app each, and sends them requests.

use std::{io, pin::pin, rc::Rc, thread};

use actix_web::{
    App, HttpResponse,
    body::{BodySize, MessageBody},
    dev::{Payload, Service as _},
    error::PayloadError,
    get,
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    post, rt, test, web,
};
use async_channel::{Receiver, Sender, bounded};
use futures_util::{TryStreamExt, future::poll_fn};
use http::{Request, Response, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use plugin_api::{Body, BoxError};
use tower::{Service, service_fn};
use tracing::{Instrument, Span};

plugin_api::export_app!(app);

type Answer = Response<StreamBody<Receiver<Result<Frame<Bytes>, BoxError>>>>;
type Job = (Request<Body>, Span, Sender<Answer>);

fn app() -> impl Service<Request<Body>, Response = Answer, Error = BoxError, Future: Send> + Clone {
    let (jobs, queue) = bounded::<Job>(1024);
    for _ in 0..2 {
        let queue = queue.clone();
        thread::spawn(|| rt::System::new().block_on(serve(queue)));
    }
    service_fn(move |request| {
        let jobs = jobs.clone();
        async move {
            let (answer, answered) = bounded(1);
            jobs.send((request, Span::current(), answer))
                .await
                .map_err(|_| "the threads have ended")?;
            Ok(answered.recv().await?)
        }
    })
}

/// Answers requests from the queue. Ends when the app is dropped, because the drop closes the queue.
async fn serve(queue: Receiver<Job>) {
    let app = Rc::new(test::init_service(App::new().configure(routes)).await);
    while let Ok((request, span, answer)) = queue.recv().await {
        let app = Rc::clone(&app);
        let answered = async move {
            let response = match app.call(convert(request)).await {
                Ok(response) => response.into_parts().1.map_into_boxed_body(),
                Err(error) => HttpResponse::from_error(error),
            };
            send(response, answer).await;
        };
        rt::spawn(answered.instrument(span));
    }
}

async fn send(response: HttpResponse, answer: Sender<Answer>) {
    let (head, body) = response.into_parts();
    let mut response = Response::builder().status(head.status().as_u16());
    for (name, value) in head.headers() {
        response = response.header(name.as_str(), value.as_bytes());
    }
    if let BodySize::Sized(size) = body.size() {
        response = response.header(CONTENT_LENGTH, size);
    }
    let (frames, received) = bounded(1);
    let response = response.body(StreamBody::new(received));
    let _ = answer.send(response.expect("its parts are valid")).await;
    let mut body = pin!(body);
    while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
        let frame = piece.map(Frame::data);
        let frame = frame.map_err(|error| error.to_string().into());
        if frames.send(frame).await.is_err() {
            break; // The client has disconnected.
        }
    }
}

/// Converts a request, because actix-web uses the types of an earlier version of the crate http.
fn convert(request: Request<Body>) -> actix_http::Request {
    let (head, body) = request.into_parts();
    let method = Method::from_bytes(head.method.as_str().as_bytes());
    let mut request = test::TestRequest::with_uri(&head.uri.to_string())
        .method(method.expect("it is valid"))
        .to_request();
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (name, value) = (name.expect("it is valid"), value.expect("it is valid"));
        request.headers_mut().append(name, value);
    }
    let body = body.into_data_stream();
    let body = body.map_err(|error| PayloadError::Io(io::Error::other(error)));
    *request.payload() = Payload::Stream {
        payload: Box::pin(body),
    };
    request
}

fn routes(config: &mut web::ServiceConfig) {
    config.service(hello).service(echo);
}

#[get("/")]
async fn hello() -> &'static str {
    tracing::info!("somebody came in");
    "hello from actix-web"
}

#[post("/echo")]
async fn echo(body: web::Payload) -> HttpResponse {
    HttpResponse::Ok().streaming(body)
}
