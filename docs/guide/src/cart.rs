use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{Router, extract::State, response::Redirect, routing::get};
use plugin_api::{BoxError, Context};

type Cart = Arc<AtomicU64>;

pub fn routes(context: &Context) -> Result<Router, BoxError> {
    let before = match context.previous_state() {
        Some(state) => std::str::from_utf8(state)?.parse()?,
        None => 0,
    };
    let cart = Cart::new(before.into());
    let state = Arc::clone(&cart);
    context.on_handover(move || state.load(Relaxed).to_string());
    Ok(Router::new()
        .route("/cart", get(count).post(add))
        .with_state(cart))
}

async fn count(State(cart): State<Cart>) -> String {
    cart.load(Relaxed).to_string()
}

async fn add(State(cart): State<Cart>) -> Redirect {
    cart.fetch_add(1, Relaxed);
    Redirect::to("/cart")
}
