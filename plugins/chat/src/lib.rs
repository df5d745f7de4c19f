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
        said: broadcast::Sender::new(BEHIND),
        context,
    };
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/socket", any(socket))
        .route("/events", get(events))
        .with_state(Arc::new(room))
}

/// All clients of the chat room.
struct Room {
    said: broadcast::Sender<Utf8Bytes>,
    context: Context,
}

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    // axum runs the closure in a task without a current span. Instrument the future, so that its
    // log lines have the request's id.
    let request = Span::current();
    upgrade
        .max_message_size(4 << 10)
        .on_upgrade(async move |socket| talk(socket, &room).instrument(request).await)
}

/// Passes messages between one client and the others until the client leaves.
async fn talk(mut socket: WebSocket, room: &Room) {
    let mut said = room.said.subscribe();
    info!(here = room.said.receiver_count(), "Somebody came");
    let mut draining = pin!(room.context.draining());
    loop {
        tokio::select! {
            () = &mut draining => {
                let again = CloseFrame {
                    code: close_code::RESTART,
                    reason: Utf8Bytes::default(),
                };
                if socket.send(Message::Close(Some(again))).await.is_ok() {
                    // Read on until the client has agreed to the close (RFC 6455, section 7.1.1).
                    while let Some(Ok(_)) = socket.recv().await {}
                }
                break;
            }
            message = socket.recv() => match message {
                // Sending never fails, because this client is subscribed itself.
                Some(Ok(Message::Text(text))) => drop(room.said.send(text)),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    debug!(%error, "A connection broke");
                    break;
                }
                None => break,
            },
            text = next(&mut said) => {
                let Some(text) = text else { break };
                if socket.send(Message::Text(text)).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(said);
    info!(here = room.said.receiver_count(), "Somebody left");
}

async fn events(
    State(room): State<Arc<Room>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let heard = stream::unfold(room.said.subscribe(), async |mut said| {
        let text = next(&mut said).await?;
        Some((Ok(Event::default().data(text.as_str())), said))
    });
    // The browser connects again by itself.
    let heard = heard.take_until(room.context.draining());
    Sse::new(heard).keep_alive(KeepAlive::default())
}

/// Returns the next message. A client that reads too slowly misses some messages.
async fn next(said: &mut broadcast::Receiver<Utf8Bytes>) -> Option<Utf8Bytes> {
    loop {
        match said.recv().await {
            Ok(text) => return Some(text),
            Err(RecvError::Lagged(missed)) => debug!(missed, "Somebody listens too slowly"),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// The number of messages that a slow client can lag behind.
const BEHIND: usize = 256;
