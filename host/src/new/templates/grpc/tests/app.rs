//! Tests of the app. They run the app without a server, and can read its log.

use axum::{
    body::Body,
    http::{Request, Version},
};
use http_body_util::BodyExt;
use plugin_api::{BoxError, testing};

use template_app::app;

#[tokio::test]
async fn a_call_is_answered() -> Result<(), BoxError> {
    let app = testing::Setup::new()
        .mount("/greeter.Greeter")
        .start(app)
        .await?;
    // A gRPC message begins with one byte (0: not compressed) and the length in four bytes. Its fields follow.
    let message = b"\0\0\0\0\x05\x0a\x03Ada";
    let request = Request::post("/SayHello")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(Body::from(&message[..]))?;
    let body = app.send(request).await.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(body.to_bytes().ends_with(b"hello Ada"));
    assert_eq!(app.events()[0].message, "somebody came in");
    Ok(())
}
