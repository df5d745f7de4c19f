//! The outcome of a load: a report of the successful load, or the failure with the step that failed.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::catalog::TakenError;
use crate::{
    error_chain::chain,
    folder::{candidate::CandidateError, store::ContentHash},
    orders::{StepTimings, as_ms},
};

/// A load that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadFailure {
    /// The path of the library.
    pub file: String,
    /// The first digits of the library's hash. `None` if the library could not be read.
    pub hash: Option<String>,
    /// The step that failed.
    pub step: String,
    /// The error with its causes, in one line.
    pub error: String,
    /// When the load failed.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

impl LoadFailure {
    /// Creates a failure from an error, with the current time.
    #[must_use]
    pub fn new(path: &Path, hash: Option<ContentHash>, error: &CandidateError) -> Self {
        Self::at_step(path, hash, error.step().to_owned(), chain(error))
    }

    /// Creates the failure of an app whose mount belongs to another app, with the current time.
    #[must_use]
    pub fn mount_taken(path: &Path, hash: Option<ContentHash>, error: &TakenError) -> Self {
        Self::at_step(path, hash, "mount".to_owned(), chain(error))
    }

    /// Creates a failure at a step, with the current time.
    #[must_use]
    pub fn at_step(path: &Path, hash: Option<ContentHash>, step: String, error: String) -> Self {
        Self {
            file: path.display().to_string(),
            hash: hash.map(|hash| hash.short()),
            step,
            error,
            at: SystemTime::now(),
        }
    }
}

/// The report of a successful load that an operator requested.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// The app.
    pub name: String,
    /// The generation that served before, if any.
    pub old_generation: Option<u64>,
    /// The generation that serves now.
    pub new_generation: u64,
    /// The plugin's version.
    pub version: String,
    /// The library's whole hash.
    pub hash: String,
    /// How long each step took.
    #[serde(rename = "ms")]
    pub timings: StepTimings,
    /// Requests that were in flight in the old generation at the swap.
    pub in_flight_at_swap: u64,
    /// How long the old generation drained, in milliseconds. `None` if no old generation drained, for example because
    /// the old generation is kept for a probation.
    #[serde(serialize_with = "option_ms", rename = "drained_ms")]
    pub drained: Option<Duration>,
    /// Requests in the old generation that were aborted because they did not end in time.
    pub failed: u64,
}

/// Serializes a time as RFC 3339.
pub(super) fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Serializes a duration in milliseconds, or null.
pub(super) fn option_ms<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_ms(time, serializer),
        None => serializer.serialize_none(),
    }
}
