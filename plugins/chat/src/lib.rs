//! A chat room. Clients of the WebSocket `socket` send and receive messages, clients of the
//! server-sent events at `events` only receive them, and the page at the root uses both.
//!
//! When a new version takes over or the server stops, all clients are asked to connect again.

#![forbid(unsafe_code)]

use std::{convert::Infallible, pin::pin, sync::Arc};

use axum::{
    Router,
    extract::{
        State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    response::{
        Html, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{any, get},
};
use futures_util::{Stream, StreamExt, stream};
use plugin_api::Context;
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{Instrument, Span, debug, info};

plugin_api::export_app!(app);

fn app(context: Context) -> Router {
    let room = Room {
        messages: broadcast::Sender::new(MAX_LAG),
        context,
    };
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/socket", any(socket))
        .route("/events", get(events))
        .with_state(Arc::new(room))
}

/// The chat room.
struct Room {
    /// Sends each message to all clients. Every client has a receiver.
    messages: broadcast::Sender<Utf8Bytes>,
    context: Context,
}

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    // axum runs the closure in a task without a current span. Instrument the future, so that its
    // log lines have the request's id.
    let request = Span::current();
    upgrade
        .max_message_size(4 << 10)
        .on_upgrade(async move |socket| serve_client(socket, &room).instrument(request).await)
}

/// Passes messages between one client and the others until the client leaves.
async fn serve_client(mut socket: WebSocket, room: &Room) {
    let mut messages = room.messages.subscribe();
    info!(here = room.messages.receiver_count(), "Somebody came");
    let mut draining = pin!(room.context.draining());
    loop {
        tokio::select! {
            () = &mut draining => {
                let close = CloseFrame {
                    code: close_code::RESTART,
                    reason: Utf8Bytes::default(),
                };
                if socket.send(Message::Close(Some(close))).await.is_ok() {
                    // Continue to read until the client confirms the close (RFC 6455, section 7.1.1).
                    while let Some(Ok(_)) = socket.recv().await {}
                }
                break;
            }
            message = socket.recv() => match message {
                // Sending never fails, because this client is subscribed itself.
                Some(Ok(Message::Text(text))) => drop(room.messages.send(text)),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    debug!(%error, "A connection broke");
                    break;
                }
                None => break,
            },
            text = next_message(&mut messages) => {
                let Some(text) = text else { break };
                if socket.send(Message::Text(text)).await.is_err() {
                    break;
                }
            }
        }
    }
    // Dropped first, so that the count no longer includes this client.
    drop(messages);
    info!(here = room.messages.receiver_count(), "Somebody left");
}

async fn events(
    State(room): State<Arc<Room>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(room.messages.subscribe(), async |mut messages| {
        let text = next_message(&mut messages).await?;
        Some((Ok(Event::default().data(text.as_str())), messages))
    });
    // End the stream when a new version takes over. The browser then connects again by itself.
    let events = events.take_until(room.context.draining());
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Returns the next message, or `None` when the room is dropped. A client that reads too slowly misses some messages.
async fn next_message(messages: &mut broadcast::Receiver<Utf8Bytes>) -> Option<Utf8Bytes> {
    loop {
        match messages.recv().await {
            Ok(text) => return Some(text),
            Err(RecvError::Lagged(missed)) => debug!(missed, "Somebody listens too slowly"),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// The number of messages that a slow client can lag behind before it misses messages.
const MAX_LAG: usize = 256;
