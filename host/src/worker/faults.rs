//! Counts the errors and panics of a generation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use tracing::error;

use super::quarantine::{PanicLimit, Quarantine};
use crate::log::{bridge::PanicCounter, origin::Origin};

/// The faults of one generation.
#[derive(Debug)]
pub struct Faults {
    errors: AtomicU64,
    panics: AtomicU64,
    quarantine: Quarantine,
}

impl Faults {
    /// Creates the counters of a generation, which is quarantined after as many panics as `limit` says.
    #[must_use]
    pub fn new(limit: PanicLimit) -> Self {
        Self {
            errors: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            quarantine: Quarantine::new(limit),
        }
    }

    /// Counts a response of status 5xx.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of responses with status 5xx.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Returns the number of panics, in requests and elsewhere.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Returns whether the generation gets no more requests because it panicked too often.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantine.is_on()
    }
}

impl PanicCounter for Faults {
    /// Also logs an error when this panic is the one that takes the generation out of service.
    fn count_panic(&self, origin: Origin) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        if let Some(PanicLimit { panics, window }) = self.quarantine.panicked(Instant::now()) {
            let Origin { plugin, generation } = origin;
            error!(
                plugin,
                generation,
                panics,
                ?window,
                "Too many panics: requests are answered with 503 until the plugin is replaced"
            );
        }
    }
}
