//! The [`Context`] that an app receives when it starts: the facts about the app, the app's hooks, and the futures that
//! announce draining and the end of the previous generation.

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

use super::handover::{HandoverHook, IntoHandover};
use crate::BoxError;

/// The app's name, mount and configuration, and the functions by which the app follows its own lifecycle. Cheap to
/// clone.
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

/// The data that all clones of a [`Context`] share. The first six fields have the meaning that [`ContextData`]
/// documents.
struct Inner {
    name: String,
    mount: String,
    version: &'static str,
    generation: u64,
    config: Option<Vec<u8>>,
    previous_state: Option<Vec<u8>>,
    /// The hooks of [`Context::on_shutdown`] that have not run yet, in the order in which the app added them.
    shutdown_hooks: Mutex<VecDeque<ShutdownHook>>,
    /// The hook of [`Context::on_handover`].
    handover_hook: Mutex<Option<HandoverHook>>,
    /// The hook of [`Context::on_handover_failed`].
    handover_failed_hook: Mutex<Option<HandoverHook>>,
    /// Whether the handover hook was called, and no failure of that handover was reported since.
    handover_started: AtomicBool,
    /// Whether this version should finish its current work ([`Context::is_draining`]).
    is_draining: watch::Sender<bool>,
    /// Whether an earlier generation of the app has not ended yet.
    has_predecessor: watch::Sender<bool>,
}

/// A hook of [`Context::on_shutdown`]. Runs at most once.
pub(crate) type ShutdownHook = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Context {
    /// Returns the app's name: the plugin's name, unless the operator has configured another name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the mount of the app: the path prefix that the app serves, such as `/` or `/shop`. The paths in the
    /// app's requests do not contain the mount.
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.0.mount
    }

    /// Returns a path of the app as clients see it, with the mount: for `/cart` of an app at `/shop`, returns
    /// `/shop/cart`. Use this for every path that the app sends to a client, because the server does not rewrite
    /// responses: the `Location` of redirects, links, and the paths of cookies.
    ///
    /// If the app has several mounts, the result contains the first mount. With the feature `info`,
    /// `RequestInfo::below_mount` uses the mount of the request.
    #[must_use]
    pub fn below_mount(&self, path: &str) -> String {
        join_mount(&self.0.mount, path)
    }

    /// Returns the plugin's version from its `Cargo.toml`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.0.version
    }

    /// Returns the number of this generation. The server numbers the loads of an app from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Returns the operator's configuration for this app, converted to the author's type `T`. If the operator has
    /// configured nothing, converts an empty table.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration does not fit `T`. The error names the key.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let config_error = |source| ConfigError {
            name: self.0.name.clone(),
            source,
        };
        let config = self.0.config.as_deref().unwrap_or(b"{}");
        // The text becomes a `Value` first, because the errors of a `Value` contain no line and column. A line of this
        // JSON text would mislead the operator, because the host has created the text from the configuration file.
        let config: serde_json::Value =
            serde_json::from_slice(config).map_err(|error| config_error(error.into()))?;
        serde_path_to_error::deserialize(config).map_err(|error| config_error(error.into()))
    }

    /// Adds a hook that runs when the app ends. An app ends when the server stops, and when a new version has replaced
    /// the app and the app's last request is done. The hooks run in the app's runtime, one after the other, in the
    /// order in which the app added them. A hook may add another hook.
    ///
    /// All hooks together have 5 s. The other hooks run even if a hook panics or takes too long, but they only have the
    /// rest of the 5 s. If the function that creates the app fails, its hooks are dropped and do not run. Hooks do not
    /// run if the server crashes or is killed.
    pub fn on_shutdown(&self, hook: impl Future<Output = ()> + Send + 'static) {
        self.0
            .shutdown_hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(Box::pin(hook));
    }

    /// Waits until this version should finish its current work, because a new version is replacing this version, the
    /// app was removed, or the server stops. Returns immediately while this version is draining. If the new version
    /// does not start or is rolled back, this version is no longer draining.
    ///
    /// Requests continue for up to the server's `--graceful-timeout`, and are then aborted. A WebSocket or a stream of
    /// events that has no end of its own should end when this future is ready. Its client then connects again, and the
    /// new version serves the client.
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
        let mut is_draining = self.0.is_draining.subscribe();
        async move {
            // An error means that the app was dropped. That ends the wait too.
            let _ = is_draining.wait_for(|is_draining| *is_draining).await;
        }
    }

    /// Returns whether this version should finish its current work, which means that [`draining`](Self::draining) is
    /// ready.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.is_draining.borrow()
    }

    /// Waits until no earlier generation of this app runs in this process: their requests have ended, their shutdown
    /// hooks are done, and their tasks are cancelled. Returns immediately for the first generation, and under a server
    /// with an ABI before 1.4. Does not wait for generations in other worker processes of the server.
    ///
    /// By default a new version starts and serves while the previous version still finishes its current work. Some work
    /// only one version may do at a time: hold a lock file, listen on a port, or consume a queue. The new version can
    /// begin such work after this wait.
    ///
    /// Wait in a task or in a handler, and not in the function that creates the app, because the server stops the
    /// previous version only after the new version serves. To release a resource before the new version *starts*, see
    /// [`on_handover`](Self::on_handover).
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
        let mut has_predecessor = self.0.has_predecessor.subscribe();
        async move {
            // An error means that this app was dropped. That ends the wait too.
            let _ = has_predecessor.wait_for(|value| !value).await;
        }
    }

    /// Sets the hook that returns the state with which the next generation starts. The next generation reads the state
    /// with [`previous_state`](Self::previous_state). Set the hook while the app starts. A later call replaces the
    /// hook.
    ///
    /// Before a new version replaces this version, the server lets new requests wait until the requests in the app have
    /// ended, and then calls the hook. No update of the state is therefore lost. The hook returns a copy of the state,
    /// because this version continues with its own state if the new version does not start.
    ///
    /// The hook returns bytes, text or `()`, a `Result` of them, or a future of either. If the hook returns an error,
    /// panics, or takes longer than the server's `--handover-timeout`, this version continues to serve.
    ///
    /// The hook can also release a resource that only one version can have: a port, a lock file, or an embedded
    /// database. The hook of [`on_handover_failed`](Self::on_handover_failed) can acquire the resource again.
    ///
    /// Both versions must understand the bytes. The bytes should therefore begin with the version of their format.
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
    pub fn on_handover<Kind>(&self, hook: impl IntoHandover<Kind>) {
        *self
            .0
            .handover_hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(hook.into_handover());
    }

    /// Sets the hook that runs after a failed handover: the server has called the hook of
    /// [`on_handover`](Self::on_handover), but this version continues to serve, because the new version did not start
    /// or the hook failed.
    ///
    /// The server lets no request into the app before this hook has ended or the server's `--handover-timeout` has
    /// passed. An error of the hook is logged. Set the hook while the app starts. A later call replaces the hook.
    /// Servers with an ABI before 1.4 do not run this hook.
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
    pub fn on_handover_failed<Kind>(&self, hook: impl IntoHandover<Kind>) {
        *self
            .0
            .handover_failed_hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(hook.into_handover());
    }

    /// Returns the state that the previous generation has handed over. Returns `None` if this is the first generation,
    /// if the previous generation did not hand over, or if the app was removed in the meantime.
    #[must_use]
    pub fn previous_state(&self) -> Option<&[u8]> {
        self.0.previous_state.as_deref()
    }
}

/// Returns `path` with `mount` before it, as clients see the path. Adds a `/` between the two if needed.
pub(crate) fn join_mount(mount: &str, path: &str) -> String {
    let mount = mount.strip_suffix('/').unwrap_or(mount);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{mount}{slash}{path}")
}

// Not derived, because the hooks do not implement `Debug`.
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

/// The facts about an app from which its [`Context`] is created.
pub(crate) struct ContextData {
    pub(crate) name: String,
    pub(crate) mount: String,
    /// The version of the plugin, from its `Cargo.toml`.
    pub(crate) version: &'static str,
    pub(crate) generation: u64,
    /// The operator's configuration: a JSON object. `None` if the operator has configured nothing.
    pub(crate) config: Option<Vec<u8>>,
    /// The state that the previous generation has handed over.
    pub(crate) previous_state: Option<Vec<u8>>,
    /// Whether an earlier generation of the app has not ended yet ([`Init::is_second`](crate::abi::Init::is_second)).
    pub(crate) has_predecessor: bool,
}

/// The error of [`Context::config`]: the operator's configuration does not fit the app's type.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of {name:?} is not what the app expects")]
pub struct ConfigError {
    name: String,
    source: BoxError,
}
