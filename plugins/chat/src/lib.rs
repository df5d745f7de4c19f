//! A chat room: whoever opens the WebSocket `socket` talks and listens, whoever reads the
//! server-sent events of `events` listens, and the page at the root does both.
//!
//! When a new version takes over, or the server stops, everybody is asked to come back.

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

/// Everybody who is here.
struct Room {
    said: broadcast::Sender<Utf8Bytes>,
    context: Context,
}

async fn socket(upgrade: WebSocketUpgrade, State(room): State<Arc<Room>>) -> Response {
    // What follows runs in a task of axum's, where no span is current: what it logs has the request's id by this.
    let request = Span::current();
    upgrade
        .max_message_size(4 << 10)
        .on_upgrade(async move |socket| talk(socket, &room).instrument(request).await)
}

/// Passes on what this one says, and what the others say, until it leaves.
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
                    // Until it has agreed (RFC 6455, section 7.1.1).
                    while let Some(Ok(_)) = socket.recv().await {}
                }
                break;
            }
            message = socket.recv() => match message {
                // There is a listener: this one.
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
    // The browser comes back by itself.
    let heard = heard.take_until(room.context.draining());
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
