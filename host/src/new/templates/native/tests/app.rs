//! Tests of the app. They run the app without a server, and can read its log.

use plugin_api::{BoxError, testing};

use template_app::app;

#[tokio::test]
async fn the_front_page_greets() -> Result<(), BoxError> {
    let app = testing::App::start(app).await?;
    let response = app.get("/").await?;
    assert_eq!(response.status(), 200);
    assert!(String::from_utf8_lossy(response.body()).contains("hello world"));
    assert_eq!(app.events()[0].message, "somebody came in");
    Ok(())
}
