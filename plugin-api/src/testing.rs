//! An app in a test: no server, no socket, no library, and its log at hand.
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
    guest::{AppFunction, Facts, InProcessApp, build},
};

/// How to start an app in a test.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    name: Option<String>,
    mount: Option<String>,
    config: Option<Vec<u8>>,
    previous_state: Option<Vec<u8>>,
    version: Option<&'static str>,
    is_second: bool,
}

/// The version of the package whose tests Cargo runs.
static PACKAGE_VERSION: LazyLock<String> =
    LazyLock::new(|| env::var("CARGO_PKG_VERSION").unwrap_or_else(|_| "0.0.0".to_owned()));

impl Setup {
    /// An app named `app`, mounted at `/`, without configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With another name.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = Some(name.into());
        Self { name, ..self }
    }

    /// Mounted elsewhere, as at `/shop`. Requests of the test still name paths below it.
    #[must_use]
    pub fn mount(self, mount: impl Into<String>) -> Self {
        let mount = Some(mount.into());
        Self { mount, ..self }
    }

    /// With what the version before handed over, for [`Context::previous_state`].
    #[must_use]
    pub fn previous_state(self, state: impl Into<Vec<u8>>) -> Self {
        let previous_state = Some(state.into());
        Self {
            previous_state,
            ..self
        }
    }

    /// With a configuration, for [`Context::config`].
    ///
    /// # Panics
    ///
    /// When `config` cannot be written as a JSON object, which is what a table of the operator's is.
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

    /// Started while the version before still runs, until [`App::previous_ended`].
    #[must_use]
    pub fn beside_previous(self) -> Self {
        Self {
            is_second: true,
            ..self
        }
    }

    /// With another version than that of the package under test.
    #[must_use]
    pub fn version(self, version: &'static str) -> Self {
        let version = Some(version);
        Self { version, ..self }
    }

    /// Starts the app of a function that [`export_app!`](crate::export_app) takes.
    ///
    /// # Errors
    ///
    /// When the function fails.
    pub async fn start<F, Shape>(self, app: F) -> Result<App, BoxError>
    where
        F: AppFunction<Shape> + 'static,
        Shape: 'static,
    {
        let events = Events::default();
        let subscriber = Registry::default().with(events.clone());
        // Records of `log` become events of the thread's subscriber. One test of the process
        // comes first.
        let _ = tracing_log::LogTracer::init();
        let guard = tracing::subscriber::set_default(subscriber);
        let context = Context::new(Facts {
            name: self.name.unwrap_or_else(|| "app".to_owned()),
            mount: self.mount.unwrap_or_else(|| "/".to_owned()),
            version: self.version.unwrap_or_else(|| &PACKAGE_VERSION),
            generation: 1,
            config: self.config,
            previous_state: self.previous_state,
            is_second: self.is_second,
        });
        let local = InProcessApp::start(context, |context| build(app, context)).await?;
        Ok(App {
            local,
            events,
            _guard: guard,
            _thread: PhantomData,
        })
    }
}

/// An app in a test, in the test's own tokio runtime.
///
/// Events that are logged on the thread of the test are kept: with the runtime that `#[tokio::test]` makes
/// unless told otherwise, that is everything but what `spawn_blocking` runs. Of two apps in one test the
/// one that was started last keeps what both log, so it is to be stopped first. Key-value pairs of the
/// crate `log` are not among the fields, as they are in the server. A connection cannot be taken over, as
/// there is none.
pub struct App {
    local: InProcessApp,
    events: Events,
    _guard: DefaultGuard,
    _thread: PhantomData<*const ()>,
}

impl App {
    /// Starts the app of a function that [`export_app!`](crate::export_app) takes, with the
    /// defaults of [`Setup`].
    ///
    /// # Errors
    ///
    /// When the function fails.
    pub async fn start<F, Shape>(app: F) -> Result<Self, BoxError>
    where
        F: AppFunction<Shape> + 'static,
        Shape: 'static,
    {
        Setup::new().start(app).await
    }

    /// The whole response to `GET path`.
    ///
    /// # Errors
    ///
    /// When `path` is no path, or the response's body breaks off.
    pub async fn get(&self, path: &str) -> Result<Response<Bytes>, BoxError> {
        let request = Request::get(path).body(Empty::<Bytes>::new())?;
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// The response to a request. As from the server, it is a 500 when the app fails or panics.
    pub async fn send<B>(&self, request: Request<B>) -> Response<UnsyncBoxBody<Bytes, BoxError>>
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.local.answer(request, None).await
    }

    /// The events that were logged so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// The state that the app gives to its next version, for [`Setup::previous_state`].
    ///
    /// # Errors
    ///
    /// When it has none to give, or its hook fails.
    pub async fn hand_over(&self) -> Result<Vec<u8>, BoxError> {
        self.local.hand_over().await
    }

    /// Tells the app that its next version did not start after [`hand_over`](Self::hand_over), and that it
    /// goes on: the hook of [`Context::on_handover_failed`] runs.
    ///
    /// # Errors
    ///
    /// When the hook fails.
    pub async fn go_on(&self) -> Result<(), BoxError> {
        self.local.go_on().await
    }

    /// Tells the app that the version before has ended: [`Context::previous_ended`] is ready.
    pub fn previous_ended(&self) {
        self.local.alone();
    }

    /// Tells the app that it is to finish what it has: [`Context::draining`] is ready.
    pub fn drain(&self) {
        self.local.drain();
    }

    /// Ends the app: its shutdown hooks run. The result is all that was logged.
    pub async fn stop(self) -> Vec<Event> {
        self.local.stop().await;
        self.events.lock().clone()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("App").finish_non_exhaustive()
    }
}

/// Something that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How serious it is.
    pub level: Level,
    /// Its target: the module that logged it, unless that said otherwise.
    pub target: String,
    /// Its text.
    pub message: String,
    /// Its other fields, as text.
    pub fields: Vec<(String, String)>,
}

impl Event {
    /// The value of a field, as text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(value)
    }
}

#[derive(Clone, Debug, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &TracingEvent<'_>, _: layer::Context<'_, S>) {
        use tracing_log::NormalizeEvent;

        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut taken = Event {
            level: Level::of(metadata),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut taken);
        self.lock().push(taken);
    }
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            // The fields that tell where a record of `log` comes from.
            name if name.starts_with("log.") => {}
            name => self.fields.push((name.to_owned(), value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
