//! Which app a request is for, and whether that app admits the request now.

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
    config::ClientLimits,
    worker::{
        generation::Generation,
        registry::{Registry, Route, Routes},
    },
};

/// Finds the apps of requests, and has what all requests of a worker share.
#[derive(Debug)]
pub struct Dispatch {
    registry: Arc<Registry>,
    max_headers: usize,
    max_body_size: u64,
    body_timeout: Duration,
    /// Makes the record that each request leaves in the logs.
    pub recorder: RequestRecorder,
    /// Whether each response over HTTP/1 asks its client to close the connection.
    pub(super) asks_to_close: AtomicBool,
}

/// The client at the other end of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's address.
    pub peer: SocketAddr,
    /// The state of the connection.
    pub activity: Arc<Activity>,
}

/// Whether a request may enter its app.
pub(super) enum Admission<'a> {
    /// The app admits the request, which counts as in flight until the [`InFlight`] is dropped.
    Admitted(&'a Route, &'a Arc<Generation>, InFlight),
    /// The app admits no request now, but will soon.
    NotYet(Door),
    /// No app answers the request.
    Refused(Refusal),
}

impl Dispatch {
    /// Dispatches to the apps of `registry`, within `limits`.
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

    /// Returns the body of a request, which keeps the limits on size and time.
    pub(super) fn body(&self, incoming: Incoming, client: &Client) -> RequestBody {
        RequestBody::new(
            incoming,
            self.max_body_size,
            self.body_timeout,
            &client.activity,
        )
    }

    /// Checks the limits that hyper does not check. `body_len` is the length that the head announces.
    ///
    /// # Errors
    ///
    /// When there are too many header fields, or the body is too large.
    pub(super) fn check_limits(&self, head: &Parts, body_len: u64) -> Result<(), Refusal> {
        if head.headers.len() > self.max_headers {
            return Err(Refusal::TooManyHeaders);
        }
        if body_len > self.max_body_size {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(())
    }

    /// Returns the routes as they are now.
    pub(super) fn routes(&self) -> Guard<Arc<Routes>> {
        self.registry.routes()
    }
}

/// Finds the app for a path, and counts the request in.
#[inline]
pub(super) fn admit<'a>(routes: &'a Routes, path: &str) -> Admission<'a> {
    let Some(route) = routes.find(path) else {
        return Admission::Refused(Refusal::NotFound);
    };
    let generation = match &route.serving {
        Some(generation) if !generation.faults.is_quarantined() => generation,
        // No generation serves yet, but one is on its way. A client would rather wait than get a 503.
        None if let Some(arrival) = &route.arrival => {
            return Admission::NotYet(Door::Arrival(arrival.clone()));
        }
        _ => return Admission::Refused(Refusal::Unavailable),
    };
    match generation.app.enter() {
        Some(in_flight) => Admission::Admitted(route, generation, in_flight),
        // `enter` and the close of a generation cannot miss each other: either the request counts as in flight
        // before the close, or `enter` fails.
        None => Admission::NotYet(Door::Paused(Arc::clone(generation))),
    }
}

/// An event for which a request waits before it can enter its app.
pub(super) enum Door {
    /// The app is about to come over from another worker.
    Arrival(CancellationToken),
    /// The generation hands its state over, or was closed a moment ago.
    Paused(Arc<Generation>),
}

impl Door {
    /// Returns when another look at the routes may find an app that admits requests.
    pub(super) async fn opened(&self) {
        match self {
            Self::Arrival(arrival) => arrival.cancelled().await,
            Self::Paused(generation) => generation.app.resumed().await,
        }
    }
}
