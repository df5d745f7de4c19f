//! The app. `host` loads it as a plugin; `src/main.rs` runs it as a program.
//!
//! A page connects to the app over a WebSocket. The app sends each message of a client to all clients.

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

/// Returns the app's routes.
pub fn app(context: Context) -> Router {
    let room = Room {
        messages: broadcast::Sender::new(64),
        context,
    };
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/socket", any(socket))
        .with_state(Arc::new(room))
}

/// The state that all connections share.
struct Room {
    /// Sends a message to every connection.
    messages: broadcast::Sender<Utf8Bytes>,
    context: Context,
}

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    upgrade.on_upgrade(async move |socket| relay(socket, &room).await)
}

/// Sends the client's messages to all clients, and all messages to this client.
async fn relay(mut socket: WebSocket, room: &Room) {
    let mut messages = room.messages.subscribe();
    tracing::info!(here = room.messages.receiver_count(), "somebody came in");
    // Completes when a newer version of the app replaces this version. The client then connects to the newer version.
    let mut draining = pin!(room.context.draining());
    loop {
        let text = tokio::select! {
            () = &mut draining => {
                let restart = CloseFrame { code: close_code::RESTART, reason: "".into() };
                // Ignore an error, because the client may have disconnected already.
                let _ = socket.send(Message::Close(Some(restart))).await;
                return;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    // This cannot fail, because this task itself holds a receiver.
                    let _ = room.messages.send(text);
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            text = messages.recv() => match text {
                Ok(text) => text,
                // The client reads too slowly, and misses some messages.
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        if socket.send(Message::Text(text)).await.is_err() {
            return;
        }
    }
}
