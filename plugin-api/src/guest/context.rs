//! What an app is told when it starts, and what it can ask for.

mod host_side;

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::handover::{self, IntoHandover};
use crate::BoxError;

/// What an app knows of its place in the server. Cheap to clone.
///
/// ```
/// use plugin_api::Context;
///
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     greeting: String,
/// }
///
/// async fn app(context: Context) -> Result<axum::Router, plugin_api::BoxError> {
///     let settings: Settings = context.config()?;
///     context.on_shutdown(async { tracing::info!("Goodbye") });
///     Ok(axum::Router::new().route("/", axum::routing::get(move || async move { settings.greeting })))
/// }
///
/// plugin_api::export_app!(app);
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

struct Inner {
    name: String,
    mount: String,
    version: &'static str,
    generation: u64,
    config: Option<Vec<u8>>,
    previous_state: Option<Vec<u8>>,
    shutdown: Mutex<VecDeque<Hook>>,
    handover: Mutex<Option<handover::Hook>>,
    take_back: Mutex<Option<handover::Hook>>,
    /// Whether the handover's hook was called, and nothing came of it so far.
    handed_over: AtomicBool,
    draining: watch::Sender<bool>,
    /// Whether an earlier generation has not ended yet.
    is_second: watch::Sender<bool>,
}

pub(crate) type Hook = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Context {
    /// The app's name: the plugin's, unless the operator gave another.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the app is mounted: `/`, or `/shop`. The app sees paths below it.
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.0.mount
    }

    /// A path of the app's as clients see it: `/cart` of an app at `/shop` is `/shop/cart`. For what nobody
    /// rewrites: the `Location` of redirects, links, paths of cookies. Of an app with several mounts this is
    /// the first; with the feature `info`, `RequestInfo::below_mount` is that of a request.
    #[must_use]
    pub fn below_mount(&self, path: &str) -> String {
        below(&self.0.mount, path)
    }

    /// The plugin's version, as its `Cargo.toml` has it.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.0.version
    }

    /// Which load of this app this is in the life of the server, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The operator's configuration for this app, as the author's type. Without any, that of an
    /// empty table.
    ///
    /// # Errors
    ///
    /// When it is not of the type's form; the error names the key.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let failed = |source| ConfigError {
            name: self.0.name.clone(),
            source,
        };
        let config = self.0.config.as_deref().unwrap_or(b"{}");
        // Parsed to a value first, whose errors do not name a line and column, because the author has never seen the
        // text.
        let config: serde_json::Value =
            serde_json::from_slice(config).map_err(|error| failed(error.into()))?;
        serde_path_to_error::deserialize(config).map_err(|error| failed(error.into()))
    }

    /// Runs `hook` when the app ends: at the server's stop, and when a new version has taken over
    /// and the last request of this one is done. Hooks run one after the other, in the order in
    /// which they were added, in the app's runtime. A hook may add another one.
    ///
    /// All hooks together have 5 s. One that panics or takes too long does not keep the others from being
    /// run, but what is left of the time is theirs. Hooks do not run when the function that makes the app
    /// fails, as there is no app then: they are dropped. They run neither when the server crashes or is killed.
    pub fn on_shutdown(&self, hook: impl Future<Output = ()> + Send + 'static) {
        self.0
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(Box::pin(hook));
    }

    /// Waits until this version is to finish what it has: a new one took over or is about to, the app
    /// was removed, or the server stops. Ready at once as long as that is so. It stops being so when the new
    /// version does not start or is rolled back.
    ///
    /// Requests go on until they are done, for as long as the server's `--graceful-timeout`, and are
    /// cut off then. What has no end of its own, as a WebSocket or a stream of events, should end
    /// now: its client comes back, and is served by the new version.
    ///
    /// ```
    /// use std::{convert::Infallible, time::Duration};
    ///
    /// use axum::{Router, response::sse::{Event, Sse}, routing::get};
    /// use futures_util::{StreamExt, stream};
    /// use plugin_api::Context;
    ///
    /// fn app(context: Context) -> Router {
    ///     let events = async move || {
    ///         let tick = async |()| {
    ///             tokio::time::sleep(Duration::from_secs(1)).await;
    ///             Some((Ok::<_, Infallible>(Event::default().data("tick")), ()))
    ///         };
    ///         Sse::new(stream::unfold((), tick).take_until(context.draining()))
    ///     };
    ///     Router::new().route("/events", get(events))
    /// }
    /// ```
    pub fn draining(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut draining = self.0.draining.subscribe();
        async move {
            // An error means that the app is gone, which ends the wait as well.
            let _ = draining.wait_for(|is| *is).await;
        }
    }

    /// Whether this version is to finish what it has: whether [`draining`](Self::draining) is ready.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Waits until no earlier generation of this app runs in this process: until their requests have left,
    /// their shutdown hooks are done and their tasks are cancelled. Ready at once for the first generation, and
    /// under a server of an ABI before 1.4. Of other worker processes of the server it knows nothing.
    ///
    /// By default a new version starts, and serves, while the one before still finishes what it has. What
    /// only one of them may do, such as hold a lock file, listen on a port or consume a queue, can begin after
    /// this. The function that makes the app must not wait for it, because the one before is stopped only after
    /// this one serves: wait in a task or in a handler. To close something before the new version
    /// *starts*, see [`on_handover`](Self::on_handover).
    ///
    /// ```
    /// use axum::Router;
    /// use plugin_api::Context;
    ///
    /// async fn app(context: Context) -> Router {
    ///     tokio::spawn(async move {
    ///         context.previous_ended().await;
    ///         // Only now: one consumer at a time.
    ///         consume().await;
    ///     });
    ///     Router::new()
    /// }
    /// # async fn consume() {}
    /// ```
    pub fn previous_ended(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut is_second = self.0.is_second.subscribe();
        async move {
            // An error means that this app is gone, which ends the wait as well.
            let _ = is_second.wait_for(|is| !is).await;
        }
    }

    /// Has `hook` give the state that the next generation is to start with, as
    /// [`previous_state`](Self::previous_state). Of use while the app starts; the last hook counts.
    ///
    /// When a new version is about to take over, new requests wait, those in the app end, and then
    /// the hook is called, so that no update is lost. It gives a copy of the state: when the new
    /// version does not start, this one goes on with its own. The hook gives bytes, text or `()`, a
    /// `Result` of them, or a future of either; an error, a panic, or taking longer
    /// than the server's `--handover-timeout` keeps this version serving.
    ///
    /// The hook is also the place to let go of what only one version may have: a port, a lock file, an
    /// embedded database. [`on_handover_failed`](Self::on_handover_failed) is the place to take it back.
    ///
    /// Both versions have to understand the bytes, so they should begin with the version of their
    /// form.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
    ///
    /// use axum::{Router, routing::get};
    /// use plugin_api::{BoxError, Context};
    ///
    /// fn app(context: Context) -> Result<Router, BoxError> {
    ///     let before = match context.previous_state() {
    ///         Some(state) => std::str::from_utf8(state)?.parse()?,
    ///         None => 0,
    ///     };
    ///     let count = Arc::new(AtomicU64::new(before));
    ///     let state = Arc::clone(&count);
    ///     context.on_handover(move || state.load(Relaxed).to_string());
    ///     let counted = async move || (count.fetch_add(1, Relaxed) + 1).to_string();
    ///     Ok(Router::new().route("/", get(counted)))
    /// }
    /// ```
    pub fn on_handover<Shape>(&self, hook: impl IntoHandover<Shape>) {
        *self
            .0
            .handover
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(hook.into_handover());
    }

    /// Runs `hook` when the hook of [`on_handover`](Self::on_handover) was called and this version goes on
    /// nevertheless, as the new one did not start, or the hook failed. No request comes in before this hook has
    /// ended, for up to the server's `--handover-timeout`. Of use while the app starts; the last hook counts. An
    /// error is logged. Servers of an ABI before 1.4 do not run it.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use axum::Router;
    /// use plugin_api::{BoxError, Context};
    /// use tokio::{net::TcpListener, sync::Mutex};
    ///
    /// async fn app(context: Context) -> Result<Router, BoxError> {
    ///     let open = async || TcpListener::bind("127.0.0.1:9100").await;
    ///     let port = Arc::new(Mutex::new(Some(open().await?)));
    ///     let held = Arc::clone(&port);
    ///     context.on_handover(move || {
    ///         let held = Arc::clone(&held);
    ///         async move { drop(held.lock().await.take()) }
    ///     });
    ///     context.on_handover_failed(move || {
    ///         let port = Arc::clone(&port);
    ///         async move {
    ///             *port.lock().await = Some(TcpListener::bind("127.0.0.1:9100").await?);
    ///             Ok::<_, std::io::Error>(())
    ///         }
    ///     });
    ///     Ok(Router::new())
    /// }
    /// ```
    pub fn on_handover_failed<Shape>(&self, hook: impl IntoHandover<Shape>) {
        *self
            .0
            .take_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(hook.into_handover());
    }

    /// The state that the generation before this one handed over; none when it was the first, did not hand
    /// over, or belongs to an app that was removed meanwhile.
    #[must_use]
    pub fn previous_state(&self) -> Option<&[u8]> {
        self.0.previous_state.as_deref()
    }
}

/// `path` below `mount`, as clients see it.
pub(crate) fn below(mount: &str, path: &str) -> String {
    let mount = mount.strip_suffix('/').unwrap_or(mount);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{mount}{slash}{path}")
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Inner")
            .field("name", &self.name)
            .field("mount", &self.mount)
            .field("version", &self.version)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// What the host says of an app's place.
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) mount: String,
    pub(crate) version: &'static str,
    pub(crate) generation: u64,
    pub(crate) config: Option<Vec<u8>>,
    pub(crate) previous_state: Option<Vec<u8>>,
    /// Whether an earlier generation has not ended yet.
    pub(crate) is_second: bool,
}

/// An app's configuration that is not of the form that the app expects.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of {name:?} is not what the app expects")]
pub struct ConfigError {
    name: String,
    source: BoxError,
}
