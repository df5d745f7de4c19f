//! What went wrong in a generation, counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::quarantine::{PanicLimit, Quarantine};

/// The faults of one generation.
#[derive(Debug)]
pub struct Faults {
    errors: AtomicU64,
    panics: AtomicU64,
    quarantine: Quarantine,
}

impl Faults {
    /// None yet, in a generation that may panic as often as `limit` says.
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

    /// Counts a panic. The limit, when this is the one that reaches it.
    pub fn panicked(&self, now: Instant) -> Option<PanicLimit> {
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.quarantine.panicked(now)
    }

    /// How many responses had a status of 5xx.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// How many panics there were, in requests and elsewhere.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Whether the generation gets no more requests, as it panicked too often.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.quarantine.is_on()
    }
}
