//! What came of a load: a success with its numbers, or the step that failed.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use crate::{
    error_chain::chain,
    folder::store::Hash,
    orders::{Took, as_ms},
    worker::load::LoadError,
};

/// A load that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// The library.
    pub file: String,
    /// The first digits of its hash, if it could be read.
    pub hash: Option<String>,
    /// What was being done.
    pub step: String,
    /// What was wrong.
    pub error: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

impl Failure {
    /// A failure of a load, now.
    #[must_use]
    pub fn new(path: &Path, hash: Option<Hash>, error: &LoadError) -> Self {
        Self::at_step(path, hash, error.step().to_owned(), chain(error))
    }

    /// A failure at a step, now.
    #[must_use]
    pub fn at_step(path: &Path, hash: Option<Hash>, step: String, error: String) -> Self {
        Self {
            file: path.display().to_string(),
            hash: hash.map(|hash| hash.short()),
            step,
            error,
            at: SystemTime::now(),
        }
    }
}

/// What came of a load that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The app.
    pub name: String,
    /// The generation that served before.
    pub old_generation: Option<u64>,
    /// The one that serves now.
    pub new_generation: u64,
    /// The plugin's version.
    pub version: String,
    /// The library's whole hash.
    pub hash: String,
    /// How long each step took.
    #[serde(rename = "ms")]
    pub took: Took,
    /// How many requests were in the old generation when it was replaced.
    pub in_flight_at_swap: u64,
    /// How long these took, in milliseconds; none while the old generation is kept for the
    /// probation.
    #[serde(serialize_with = "option_ms", rename = "drained_ms")]
    pub drained: Option<Duration>,
    /// How many of them were cut off.
    pub failed: u64,
}

/// Writes a time as RFC 3339 has it.
pub(super) fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

pub(super) fn option_ms<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_ms(time, serializer),
        None => serializer.serialize_none(),
    }
}
