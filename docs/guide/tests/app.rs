use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{Request, StatusCode, header::LOCATION},
};
use plugin_api::{BoxError, testing};

fn setup() -> testing::Setup {
    let config = BTreeMap::from([("title", "Corner shop"), ("public", "public")]);
    testing::Setup::new().mount("/shop").config(&config)
}

#[tokio::test]
async fn the_title_is_the_operators() -> Result<(), BoxError> {
    let app = setup().start(shop::app).await?;
    assert_eq!(app.get("/title").await?.body(), "Corner shop");
    Ok(())
}

#[tokio::test]
async fn redirects_stay_below_the_mount() -> Result<(), BoxError> {
    let app = setup().start(shop::app).await?;
    let response = app.send(Request::post("/cart").body(Body::empty())?).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[LOCATION], "/shop/cart");
    let response = app.get("/help").await?;
    assert_eq!(response.headers()[LOCATION], "/shop/help/");
    Ok(())
}

#[tokio::test]
async fn the_cart_moves_on_to_the_next_version() -> Result<(), BoxError> {
    let app = setup().start(shop::app).await?;
    app.send(Request::post("/cart").body(Body::empty())?).await;
    let state = app.hand_over().await?;

    let app = setup().previous_state(state).start(shop::app).await?;
    assert_eq!(app.get("/cart").await?.body(), "1");
    Ok(())
}

#[tokio::test]
async fn a_misspelled_key_is_named() {
    let config = BTreeMap::from([("titel", "Shop")]);
    let start = testing::Setup::new().config(&config).start(shop::app);
    let error = start.await.expect_err("it has no such key").to_string();
    assert!(error.contains("titel"), "{error}");
}

#[tokio::test]
async fn the_books_are_closed_at_the_end() -> Result<(), BoxError> {
    let app = setup().start(shop::app).await?;
    let events = app.stop().await;
    assert!(
        events
            .iter()
            .any(|event| event.message == "the books are closed")
    );
    Ok(())
}
