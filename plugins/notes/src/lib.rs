//! Notes over JSON: an app with state, a background task, timers, and a client connection.
//!
//! | request | does |
//! |---|---|
//! | `GET /notes/` | lists the notes |
//! | `POST /notes/` | adds a note: `{"text": "...", "expires_in_ms": 60000}`; `expires_in_ms` is optional |
//! | `GET`, `PUT`, `DELETE /notes/1` | reads, replaces, removes note 1 |
//! | `GET /notes/after?ms=100` | lists the notes after 100 ms |
//! | `GET /notes/self` | requests the notes from this server, over TCP |
//!
//! The operator sets the address of this server, if it is not 127.0.0.1:8000:
//!
//! ```toml
//! [app.notes]
//! config = { server = "127.0.0.1:8080" }
//! ```
//!
//! The notes are lost when the server stops or a new version of this plugin takes over.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
    routing::get,
};
use plugin_api::{ConfigError, Context};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, Instant},
};
use tracing::{debug, info, warn};

plugin_api::export_app!(app);

/// Runs once, in the plugin's own runtime. The tasks that it spawns end with the plugin.
fn app(context: Context) -> Result<Router, ConfigError> {
    let Config { server } = context.config()?;
    let notes = Notes {
        mount: context.mount().into(),
        server,
        store: Arc::default(),
    };
    let sweeper = tokio::spawn(sweep(notes.clone()));
    context.on_shutdown(async move {
        sweeper.abort();
        info!("The sweeper has ended");
    });
    let routes = Router::new()
        .route("/", get(list).post(add))
        .route("/{id}", get(read).put(replace).delete(remove))
        .route("/after", get(after))
        .route("/self", get(fetch_from_self))
        .with_state(notes);
    Ok(routes)
}

/// The app's configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The address of this server.
    server: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        let server = (Ipv4Addr::LOCALHOST, 8000).into();
        Self { server }
    }
}

/// The state of the app. Clones share the same notes.
#[derive(Clone)]
struct Notes {
    mount: Arc<str>,
    server: SocketAddr,
    store: Arc<Mutex<Store>>,
}

#[derive(Default)]
struct Store {
    /// The ID of the note that was added last.
    last_id: u64,
    notes: BTreeMap<u64, Note>,
}

#[derive(Clone, Serialize)]
struct Note {
    id: u64,
    text: String,
    /// `None` if the note never expires.
    #[serde(skip)]
    expires: Option<Instant>,
}

/// The body of a request that adds or replaces a note.
#[derive(Deserialize)]
struct Draft {
    text: String,
    expires_in_ms: Option<u32>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draft {
    fn into_note(self, id: u64) -> Note {
        let expiry = |ms: u32| Instant::now() + Duration::from_millis(ms.into());
        Note {
            id,
            text: self.text,
            expires: self.expires_in_ms.map(expiry),
        }
    }
}

async fn list(State(notes): State<Notes>) -> Json<Vec<Note>> {
    Json(notes.lock().notes.values().cloned().collect())
}

async fn add(State(notes): State<Notes>, Json(draft): Json<Draft>) -> impl IntoResponse {
    let note = {
        let mut store = notes.lock();
        store.last_id += 1;
        let note = draft.into_note(store.last_id);
        store.notes.insert(note.id, note.clone());
        note
    };
    info!(note.id, "Note added");
    // The app sees paths below its mount, but a link needs the whole path, so add the mount.
    let location = format!("{}/{}", notes.mount.trim_end_matches('/'), note.id);
    (StatusCode::CREATED, [(LOCATION, location)], Json(note))
}

async fn read(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<Json<Note>, StatusCode> {
    let note = notes.lock().notes.get(&id).cloned();
    note.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn replace(
    State(notes): State<Notes>,
    Path(id): Path<u64>,
    Json(draft): Json<Draft>,
) -> Result<Json<Note>, StatusCode> {
    let mut store = notes.lock();
    let note = store.notes.get_mut(&id).ok_or(StatusCode::NOT_FOUND)?;
    *note = draft.into_note(id);
    Ok(Json(note.clone()))
}

async fn remove(State(notes): State<Notes>, Path(id): Path<u64>) -> StatusCode {
    match notes.lock().notes.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

/// The query of `GET /notes/after`.
#[derive(Deserialize)]
struct After {
    ms: u32,
}

/// Waits for a timer, as in any tokio program.
async fn after(notes: State<Notes>, Query(After { ms }): Query<After>) -> Json<Vec<Note>> {
    time::sleep(Duration::from_millis(ms.into())).await;
    list(notes).await
}

/// Fetches the notes from this server, over a client connection. Only the operator sets the address: if clients could
/// choose the address, they could use this server to attack other servers.
async fn fetch_from_self(State(notes): State<Notes>) -> Result<String, (StatusCode, String)> {
    let path = format!("{}/", notes.mount.trim_end_matches('/'));
    fetch(notes.server, &path).await.map_err(|error| {
        warn!(%error, server = %notes.server, "Asking this server failed");
        (StatusCode::BAD_GATEWAY, error.to_string())
    })
}

/// Requests `path` from `server`, and returns the raw bytes of the response as text.
async fn fetch(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

/// Removes expired notes. Runs until the task is cancelled.
async fn sweep(notes: Notes) {
    let mut ticks = time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let now = Instant::now();
        notes.lock().notes.retain(|id, note| {
            let is_current = note.expires.is_none_or(|expires| expires > now);
            if !is_current {
                debug!(id, "Note expired");
            }
            is_current
        });
    }
}
