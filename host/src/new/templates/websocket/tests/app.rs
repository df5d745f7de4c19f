//! Tests of the app. They run the app without a server, and can read its log.

use plugin_api::{BoxError, testing};

use template_app::app;

#[tokio::test]
async fn the_front_page_opens_a_websocket() -> Result<(), BoxError> {
    let app = testing::App::start(app).await?;
    let response = app.get("/").await?;
    assert_eq!(response.status(), 200);
    assert!(String::from_utf8_lossy(response.body()).contains("new WebSocket("));
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_refused() -> Result<(), BoxError> {
    let app = testing::App::start(app).await?;
    assert_eq!(app.get("/socket").await?.status(), 400);
    Ok(())
}
