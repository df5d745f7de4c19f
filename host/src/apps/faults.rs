//! Counts the errors and panics of a generation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use tracing::error;

use super::quarantine::{PanicLimit, Quarantine};
use crate::log::{bridge::PanicCounter, origin::Origin};

/// The counters of errors and panics of one generation.
#[derive(Debug)]
pub struct Faults {
    /// The number of responses with status 5xx.
    errors: AtomicU64,
    panics: AtomicU64,
    quarantine: Quarantine,
}

impl Faults {
    /// Creates the counters of a generation. The generation is put into quarantine when its panics reach `limit`.
    #[must_use]
    pub fn new(limit: PanicLimit) -> Self {
        Self {
            errors: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            quarantine: Quarantine::new(limit),
        }
    }

    /// Counts a response with status 5xx.
    pub fn count_error(&self) {
        // Relaxed, because the counters order no other data.
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
        self.quarantine.is_active()
    }
}

impl PanicCounter for Faults {
    /// Counts a panic. Logs an error if this panic puts the generation into quarantine.
    fn count_panic(&self, origin: Origin) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        if let Some(PanicLimit { panics, window }) = self.quarantine.count_panic(Instant::now()) {
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
