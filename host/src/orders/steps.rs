//! The steps of a load, and how long each took.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(crate) const ALL: [Self; 5] = [
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

/// How long each step of a load took, in milliseconds when written out.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct StepTimings {
    /// To read the library and check its manifest.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub read: Duration,
    /// To write the private copy.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub stage: Duration,
    /// To open it.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub open: Duration,
    /// Until the last request had left the generation before, while new ones waited.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub drain: Duration,
    /// Until the generation before had given its state.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub hand_over: Duration,
    /// Until the app had started.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub init: Duration,
    /// To send requests to it.
    #[serde(serialize_with = "as_ms", deserialize_with = "from_ms")]
    pub swap: Duration,
}

impl StepTimings {
    /// No time at all.
    pub const NONE: Self = Self {
        read: Duration::ZERO,
        stage: Duration::ZERO,
        open: Duration::ZERO,
        drain: Duration::ZERO,
        hand_over: Duration::ZERO,
        init: Duration::ZERO,
        swap: Duration::ZERO,
    };

    /// These times and those of other steps.
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

/// Milliseconds, as [`as_ms`] writes them.
fn from_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let ms = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(ms / 1e3).map_err(serde::de::Error::custom)
}
