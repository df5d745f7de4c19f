//! The steps of a load, and how long each took.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A step of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Step {
    /// The supervisor writes the private copy.
    Stage,
    /// The dynamic linker opens the library, and the ABI is checked.
    Open,
    /// The previous generation finishes its requests in flight. New requests wait.
    Drain,
    /// The previous generation hands its state over.
    HandOver,
    /// The app starts.
    Init,
}

impl Step {
    /// All steps, each at the index that is its value as a number.
    pub(crate) const ALL: [Self; 5] = [
        Self::Stage,
        Self::Open,
        Self::Drain,
        Self::HandOver,
        Self::Init,
    ];

    /// Returns the name of the step in logs and reports.
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

/// How long each step of a load took. Serialized in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct StepTimings {
    /// Reading the library and checking its manifest.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub read: Duration,
    /// Writing the private copy.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub stage: Duration,
    /// Opening the library.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub open: Duration,
    /// Waiting for the requests in flight of the previous generation, while new requests waited.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub drain: Duration,
    /// Waiting for the state of the previous generation.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub hand_over: Duration,
    /// Starting the app.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub init: Duration,
    /// Replacing the routes.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub swap: Duration,
}

impl StepTimings {
    /// All durations are zero.
    pub const NONE: Self = Self {
        read: Duration::ZERO,
        stage: Duration::ZERO,
        open: Duration::ZERO,
        drain: Duration::ZERO,
        hand_over: Duration::ZERO,
        init: Duration::ZERO,
        swap: Duration::ZERO,
    };

    /// Returns the sum of two timings for each step.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            stage: self.stage + other.stage,
            open: self.open + other.open,
            drain: self.drain + other.drain,
            hand_over: self.hand_over + other.hand_over,
            init: self.init + other.init,
            swap: self.swap + other.swap,
        }
    }

    /// Returns the sum of the durations of all steps.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.read + self.stage + self.open + self.drain + self.hand_over + self.init + self.swap
    }
}

/// Serializes a duration in milliseconds, with a precision of one microsecond.
///
/// # Errors
///
/// When the serializer fails.
pub(crate) fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_micros() as f64 / 1e3)
}

/// Deserializes a duration that [`as_ms`] has written.
fn from_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let ms = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(ms / 1e3).map_err(serde::de::Error::custom)
}
