//! A chat room: whoever opens the WebSocket `socket` talks and listens, whoever reads the
//! server-sent events of `events` listens, and the page at the root does both.

#![forbid(unsafe_code)]

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    response::{
        Html, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{any, get},
};
use futures_util::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{debug, info};

plugin_api::export_app!(app);

fn app() -> Router {
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/socket", any(socket))
        .route("/events", get(events))
        .with_state(Arc::new(Room(broadcast::Sender::new(BEHIND))))
}

/// Everybody who is here.
struct Room(broadcast::Sender<Utf8Bytes>);

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    upgrade
        .max_message_size(4 << 10)
        .on_upgrade(async move |socket| talk(socket, &room).await)
}

/// Passes on what this one says, and what the others say, until it leaves.
async fn talk(mut socket: WebSocket, room: &Room) {
    let mut said = room.0.subscribe();
    info!(here = room.0.receiver_count(), "Somebody came");
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                // There is a listener: this one.
                Some(Ok(Message::Text(text))) => drop(room.0.send(text)),
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
    info!(here = room.0.receiver_count(), "Somebody left");
}

async fn events(
    State(room): State<Arc<Room>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let heard = stream::unfold(room.0.subscribe(), async |mut said| {
        let text = next(&mut said).await?;
        Some((Ok(Event::default().data(text.as_str())), said))
    });
    Sse::new(heard).keep_alive(KeepAlive::default())
}

/// What is said next. Who listens too slowly misses some of it.
async fn next(said: &mut broadcast::Receiver<Utf8Bytes>) -> Option<Utf8Bytes> {
    loop {
        match said.recv().await {
            Ok(text) => return Some(text),
            Err(RecvError::Lagged(missed)) => debug!(missed, "Somebody listens too slowly"),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// How many messages somebody may be behind.
const BEHIND: usize = 256;
