//! What an app is told when it starts, and what it can ask for.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use serde::de::DeserializeOwned;

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
    shutdown: Mutex<Vec<Hook>>,
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
        serde_json::from_slice(self.0.config.as_deref().unwrap_or(b"{}")).map_err(|source| {
            ConfigError {
                name: self.0.name.clone(),
                source,
            }
        })
    }

    /// Runs `hook` when the app ends: at the server's stop, and when a new version has taken over
    /// and the last request of this one is done. Hooks run one after the other, in the order in
    /// which they were added, in the app's runtime.
    pub fn on_shutdown(&self, hook: impl Future<Output = ()> + Send + 'static) {
        self.0
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::pin(hook));
    }

    pub(crate) fn new(
        name: String,
        mount: String,
        version: &'static str,
        generation: u64,
        config: Option<Vec<u8>>,
    ) -> Self {
        let shutdown = Mutex::default();
        Self(Arc::new(Inner {
            name,
            mount,
            version,
            generation,
            config,
            shutdown,
        }))
    }

    /// The hooks, in the order in which they were added.
    pub(crate) fn take_shutdown_hooks(&self) -> Vec<Hook> {
        mem::take(
            &mut *self
                .0
                .shutdown
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
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

/// An app's configuration that is not of the form that the app expects.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of {name:?} is not what the app expects")]
pub struct ConfigError {
    name: String,
    source: serde_json::Error,
}
