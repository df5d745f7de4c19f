//! The app: the server loads it as a plugin, and `src/main.rs` runs it alone.
//!
//! A page talks to it over a WebSocket, and hears what everybody says.

use std::{pin::pin, sync::Arc};

use axum::{
    Router,
    extract::{
        State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    response::{Html, Response},
    routing::{any, get},
};
use plugin_api::Context;
use tokio::sync::broadcast;

plugin_api::export_app!(app);

/// The app's routes.
pub fn app(context: Context) -> Router {
    let room = Room {
        said: broadcast::Sender::new(64),
        context,
    };
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/socket", any(socket))
        .with_state(Arc::new(room))
}

/// Everybody who is connected.
struct Room {
    said: broadcast::Sender<Utf8Bytes>,
    context: Context,
}

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    upgrade.on_upgrade(async move |socket| talk(socket, &room).await)
}

async fn talk(mut socket: WebSocket, room: &Room) {
    let mut said = room.said.subscribe();
    tracing::info!(here = room.said.receiver_count(), "somebody came in");
    // Ready when a newer version of the app takes over: the client then connects again, to that one.
    let mut draining = pin!(room.context.draining());
    loop {
        let text = tokio::select! {
            () = &mut draining => {
                let restart = CloseFrame { code: close_code::RESTART, reason: "".into() };
                // The client may be gone already.
                let _ = socket.send(Message::Close(Some(restart))).await;
                return;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    // Sending never fails, because this task has a receiver itself.
                    let _ = room.said.send(text);
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            text = said.recv() => match text {
                Ok(text) => text,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        if socket.send(Message::Text(text)).await.is_err() {
            return;
        }
    }
}
