//! Runs an app in a test, without a server, a socket or a library. The test can read the events that the app logs.
//!
//! ```
//! use axum::{Router, routing::get};
//! use plugin_api::{Level, testing};
//!
//! fn app() -> Router {
//!     Router::new().route("/", get(async || {
//!         tracing::warn!(left = 3, "nearly out of bread");
//!         "hello world"
//!     }))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), plugin_api::BoxError> {
//! let app = testing::App::start(app).await?;
//! let response = app.get("/").await?;
//! assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"hello world"[..]));
//!
//! let events = app.events();
//! assert_eq!((events[0].level, &*events[0].message), (Level::Warn, "nearly out of bread"));
//! assert_eq!(events[0].field("left"), Some("3"));
//! app.stop().await;
//! # Ok(())
//! # }
//! ```

use std::{
    env, fmt,
    marker::PhantomData,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use serde::Serialize;
use tracing::subscriber::DefaultGuard;
use tracing_core::{Event as TracingEvent, Field, Subscriber, field::Visit};
use tracing_subscriber::{
    Layer, Registry,
    layer::{self, SubscriberExt},
};

use crate::{
    BoxError, Context, Level,
    guest::{AppFunction, ContextData, InProcessApp, build},
};

/// The settings with which a test starts an app.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    name: Option<String>,
    mount: Option<String>,
    config: Option<Vec<u8>>,
    previous_state: Option<Vec<u8>>,
    version: Option<&'static str>,
    has_predecessor: bool,
}

/// The version of the package under test: Cargo sets this variable when it runs a test. `0.0.0` outside of Cargo.
static PACKAGE_VERSION: LazyLock<String> =
    LazyLock::new(|| env::var("CARGO_PKG_VERSION").unwrap_or_else(|_| "0.0.0".to_owned()));

impl Setup {
    /// Returns the default settings: an app named `app`, mounted at `/`, without configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the app.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = Some(name.into());
        Self { name, ..self }
    }

    /// Sets the mount of the app, such as `/shop`. The paths of the test's requests stay without the mount.
    #[must_use]
    pub fn mount(self, mount: impl Into<String>) -> Self {
        let mount = Some(mount.into());
        Self { mount, ..self }
    }

    /// Sets the state from the previous version, for [`Context::previous_state`].
    #[must_use]
    pub fn previous_state(self, state: impl Into<Vec<u8>>) -> Self {
        let previous_state = Some(state.into());
        Self {
            previous_state,
            ..self
        }
    }

    /// Sets the configuration, for [`Context::config`].
    ///
    /// # Panics
    ///
    /// Panics if `config` cannot be serialized as a JSON object. The operator's configuration is always a table, and a
    /// table is a JSON object here.
    #[must_use]
    pub fn config(self, config: &impl Serialize) -> Self {
        let config = serde_json::to_value(config).expect("it can be written as JSON");
        assert!(
            config.is_object(),
            "a configuration is a table, not {config}"
        );
        let config = Some(config.to_string().into_bytes());
        Self { config, ..self }
    }

    /// Starts the app as if the previous version still runs. A call of [`App::previous_ended`] ends this state.
    #[must_use]
    pub fn beside_previous(self) -> Self {
        Self {
            has_predecessor: true,
            ..self
        }
    }

    /// Sets the version of the app. The default is the version of the package under test.
    #[must_use]
    pub fn version(self, version: &'static str) -> Self {
        let version = Some(version);
        Self { version, ..self }
    }

    /// Starts an app. `app` is a function that [`export_app!`](crate::export_app) accepts.
    ///
    /// # Errors
    ///
    /// Returns an error if the function fails.
    pub async fn start<F, Kind>(self, app: F) -> Result<App, BoxError>
    where
        F: AppFunction<Kind> + 'static,
        Kind: 'static,
    {
        let events = EventRecorder::default();
        let subscriber = Registry::default().with(events.clone());
        // Converts records of `log` to `tracing` events. The converter is global, and only the first test of the
        // process can install it, so an error is ignored.
        let _ = tracing_log::LogTracer::init();
        // Only for this thread, because other tests of the process run on other threads at the same time.
        let guard = tracing::subscriber::set_default(subscriber);
        let context = Context::new(ContextData {
            name: self.name.unwrap_or_else(|| "app".to_owned()),
            mount: self.mount.unwrap_or_else(|| "/".to_owned()),
            version: self.version.unwrap_or_else(|| &PACKAGE_VERSION),
            generation: 1,
            config: self.config,
            previous_state: self.previous_state,
            has_predecessor: self.has_predecessor,
        });
        let app = InProcessApp::start(context, |context| build(app, context)).await?;
        Ok(App {
            app,
            events,
            _subscriber: guard,
            _not_send: PhantomData,
        })
    }
}

/// An app in a test. The app runs in the test's own tokio runtime.
///
/// The app records all events that are logged on the thread of the test. With the default runtime of `#[tokio::test]`,
/// these are all events except those from `spawn_blocking`.
///
/// If a test starts two apps, the app that was started last records the events of both. Stop the last app first.
///
/// Two things differ from the server: the events do not contain the key-value pairs of the crate `log`, and the app
/// cannot upgrade a connection, because the test has no connection.
pub struct App {
    app: InProcessApp,
    events: EventRecorder,
    /// Restores the previous subscriber of the thread when the app is dropped.
    _subscriber: DefaultGuard,
    /// Makes the type `!Send`, because `_subscriber` must be dropped on the thread that has created it.
    _not_send: PhantomData<*const ()>,
}

impl App {
    /// Starts an app with the default settings of [`Setup`]. `app` is a function that
    /// [`export_app!`](crate::export_app) accepts.
    ///
    /// # Errors
    ///
    /// Returns an error if the function fails.
    pub async fn start<F, Kind>(app: F) -> Result<Self, BoxError>
    where
        F: AppFunction<Kind> + 'static,
        Kind: 'static,
    {
        Setup::new().start(app).await
    }

    /// Sends a `GET` request for `path`, a path below the mount. Returns the response with its whole body.
    ///
    /// # Errors
    ///
    /// Returns an error if `path` is not a valid path, or the response's body fails before its end.
    pub async fn get(&self, path: &str) -> Result<Response<Bytes>, BoxError> {
        let request = Request::get(path).body(Empty::<Bytes>::new())?;
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request, and returns the response. As in the server, the response is a 500 if the app returns an error
    /// or panics.
    pub async fn send<B>(&self, request: Request<B>) -> Response<UnsyncBoxBody<Bytes, BoxError>>
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.app.answer(request, None).await
    }

    /// Returns the events that were logged since the start of the app.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// Calls the hook of [`Context::on_handover`], and returns the state for the next version. Pass the state to
    /// [`Setup::previous_state`].
    ///
    /// # Errors
    ///
    /// Returns an error if the app has no hook, or the hook fails.
    pub async fn hand_over(&self) -> Result<Vec<u8>, BoxError> {
        self.app.hand_over().await
    }

    /// Tells the app that its next version did not start after [`hand_over`](Self::hand_over), and that this version
    /// continues. Runs the hook of [`Context::on_handover_failed`].
    ///
    /// # Errors
    ///
    /// Returns an error if the hook fails.
    pub async fn go_on(&self) -> Result<(), BoxError> {
        self.app.cancel_handover().await
    }

    /// Tells the app that the previous version has ended: [`Context::previous_ended`] is ready from now on.
    pub fn previous_ended(&self) {
        self.app.set_previous_ended();
    }

    /// Tells the app to finish its requests: [`Context::draining`] is ready from now on.
    pub fn drain(&self) {
        self.app.drain();
    }

    /// Runs the shutdown hooks and ends the app. Returns all events that were logged since the start of the app.
    pub async fn stop(self) -> Vec<Event> {
        self.app.stop().await;
        self.events.lock().clone()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("App").finish_non_exhaustive()
    }
}

/// A log event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The level.
    pub level: Level,
    /// The target. By default, the path of the module that has logged the event.
    pub target: String,
    /// The message. Empty if the event has none.
    pub message: String,
    /// The names and values of all fields except the message. The values are formatted as text.
    pub fields: Vec<(String, String)>,
}

impl Event {
    /// Returns the value of the first field with this name, as text. Returns `None` if the event has no such field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(value)
    }
}

/// A layer that stores all events. Clones share the same events.
#[derive(Clone, Debug, Default)]
struct EventRecorder(Arc<Mutex<Vec<Event>>>);

impl EventRecorder {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for EventRecorder {
    fn on_event(&self, event: &TracingEvent<'_>, _: layer::Context<'_, S>) {
        use tracing_log::NormalizeEvent;

        // For a record of `log`, the event's own metadata is the same for all records of a level. The normalized
        // metadata has the target of the record.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut recorded = Event {
            level: Level::of(metadata),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        // The fields are formatted before the lock is taken, because the author's `Debug` code may log too.
        event.record(&mut recorded);
        self.lock().push(recorded);
    }
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            // `tracing-log` adds these fields to records of `log`: target, module, file and line.
            name if name.starts_with("log.") => {}
            name => self.fields.push((name.to_owned(), value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
