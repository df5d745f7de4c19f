//! The steps of a load: which one it is at, and how long each took.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use serde::{Serialize, Serializer};

/// Where a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Its private copy is written.
    Stage,
    /// The dynamic linker and the gate look at it.
    Open,
    /// The last requests in the generation before come to their end, new ones wait.
    Drain,
    /// The generation before gives its state.
    HandOver,
    /// The app starts.
    Init,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Stage,
        Self::Open,
        Self::Drain,
        Self::HandOver,
        Self::Init,
    ];

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Open => "open",
            Self::Drain => "drain",
            Self::HandOver => "handover",
            Self::Init => "init",
        }
    }
}

/// Where a load is, for whoever wants to know.
#[derive(Debug)]
pub struct Progress(AtomicU8);

impl Progress {
    /// At the first step.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU8::new(Step::Stage as u8))
    }

    /// The step that it is at.
    #[must_use]
    pub fn step(&self) -> Step {
        Step::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(super) fn at(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// How long each step of a load took, in milliseconds when written out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Took {
    /// To read the library and check its manifest.
    #[serde(serialize_with = "as_ms")]
    pub read: Duration,
    /// To write the private copy.
    #[serde(serialize_with = "as_ms")]
    pub stage: Duration,
    /// To open it.
    #[serde(serialize_with = "as_ms")]
    pub open: Duration,
    /// Until the last request had left the generation before, while new ones waited.
    #[serde(serialize_with = "as_ms")]
    pub drain: Duration,
    /// Until the generation before had given its state.
    #[serde(serialize_with = "as_ms")]
    pub hand_over: Duration,
    /// Until the app had started.
    #[serde(serialize_with = "as_ms")]
    pub init: Duration,
    /// To send requests to it.
    #[serde(serialize_with = "as_ms")]
    pub swap: Duration,
}

impl Took {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.read + self.stage + self.open + self.drain + self.hand_over + self.init + self.swap
    }
}

/// Milliseconds, to the microsecond.
///
/// # Errors
///
/// When the serializer's are.
pub(crate) fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_micros() as f64 / 1e3)
}
