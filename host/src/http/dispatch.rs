//! Finds the app of a request, and lets the request enter the app.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::Guard;
use http::request::Parts;
use hyper::body::Incoming;
use plugin_api::host::InFlight;
use tokio_util::sync::CancellationToken;

use super::{
    activity::Activity, refusal::Refusal, request_body::RequestBody,
    request_record::RequestRecorder,
};
use crate::{
    apps::{
        generation::Generation,
        registry::{Registry, Route, Routes},
    },
    config::ClientLimits,
};

/// Finds the apps of requests. All requests of a worker share one `Dispatch`.
#[derive(Debug)]
pub struct Dispatch {
    registry: Arc<Registry>,
    /// The limit `--max-headers` on the number of header fields.
    max_headers: usize,
    /// The limit `--max-body-size`, in bytes.
    max_body_size: u64,
    /// The limit `--body-timeout` on the time in which a client sends nothing of a body.
    body_timeout: Duration,
    /// Creates the record of each request for the logs.
    pub recorder: RequestRecorder,
    /// Whether each response over HTTP/1 asks its client to close the connection. Set when this worker stops while
    /// other workers accept from the same sockets.
    pub(super) asks_to_close: AtomicBool,
}

/// The client of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's address.
    pub peer: SocketAddr,
    /// The activity of the connection.
    pub activity: Arc<Activity>,
}

/// The result of [`admit`].
pub(super) enum Admission<'a> {
    /// The app admits the request. The request counts as in flight until the [`InFlight`] is dropped.
    Admitted(&'a Route, &'a Arc<Generation>, InFlight),
    /// The app admits no request now. The caller has to wait and to call [`admit`] again with newer routes.
    NotYet(AdmissionWait),
    /// No app can serve the request.
    Refused(Refusal),
}

impl Dispatch {
    /// Creates a dispatch to the apps of `registry`, within `limits`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, limits: &ClientLimits, recorder: RequestRecorder) -> Self {
        Self {
            registry,
            max_headers: limits.max_headers.into(),
            max_body_size: limits.max_body_size,
            body_timeout: limits.body_timeout,
            recorder,
            asks_to_close: AtomicBool::new(false),
        }
    }

    /// Returns the body of a request, with the limits on its size and time.
    pub(super) fn body(&self, incoming: Incoming, client: &Client) -> RequestBody {
        RequestBody::new(
            incoming,
            self.max_body_size,
            self.body_timeout,
            &client.activity,
        )
    }

    /// Checks the limits that hyper does not check. `body_len` is the length of the body according to the head, or 0 if
    /// the head has no length.
    ///
    /// # Errors
    ///
    /// When the request has too many header fields, or the body is too large.
    pub(super) fn check_limits(&self, head: &Parts, body_len: u64) -> Result<(), Refusal> {
        if head.headers.len() > self.max_headers {
            return Err(Refusal::TooManyHeaders);
        }
        if body_len > self.max_body_size {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(())
    }

    /// Returns the current routes.
    pub(super) fn routes(&self) -> Guard<Arc<Routes>> {
        self.registry.routes()
    }
}

/// Finds the app for a path, and counts the request as in flight if the app admits it.
#[inline]
pub(super) fn admit<'a>(routes: &'a Routes, path: &str) -> Admission<'a> {
    let Some(route) = routes.find(path) else {
        return Admission::Refused(Refusal::NotFound);
    };
    let generation = match &route.serving {
        Some(generation) if !generation.faults.is_quarantined() => generation,
        // The app is about to arrive from another worker. The request waits, because a client prefers a short wait to
        // a 503.
        None if let Some(arrival) = &route.arrival => {
            return Admission::NotYet(AdmissionWait::Arrival(arrival.clone()));
        }
        _ => return Admission::Refused(Refusal::Unavailable),
    };
    match generation.app.enter() {
        Some(in_flight) => Admission::Admitted(route, generation, in_flight),
        // The generation is paused or closed. `enter` and `close` are ordered: either the request counts as in flight
        // before the close, or `enter` fails.
        None => Admission::NotYet(AdmissionWait::Resume(Arc::clone(generation))),
    }
}

/// The event that a request waits for before it can enter its app.
pub(super) enum AdmissionWait {
    /// The app arrives from another worker, or is not awaited any more.
    Arrival(CancellationToken),
    /// The generation is not paused any more. A generation is paused while it hands its state over. If it was closed,
    /// the wait is over at once.
    Resume(Arc<Generation>),
}

impl AdmissionWait {
    /// Waits for the event. The app may admit the request afterwards.
    pub(super) async fn wait(&self) {
        match self {
            Self::Arrival(arrival) => arrival.cancelled().await,
            Self::Resume(generation) => generation.app.resumed().await,
        }
    }
}
