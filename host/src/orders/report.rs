//! What a worker says of itself when it is asked.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::worker::process::{Footprint, ProcessUsage};

/// What a worker has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The generations that are there.
    pub generations: Vec<GenerationReport>,
    /// What each generation that has ended still takes.
    pub ended: Vec<EndedGeneration>,
    /// How many libraries were loaded.
    pub loads: usize,
    /// About how many more can be.
    pub loads_left: usize,
    /// Requests that the apps got since the worker began.
    pub requests: u64,
    /// What the process has.
    pub process: ProcessUsage,
}

/// A generation that has ended: its library stays mapped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedGeneration {
    /// The app.
    pub app: String,
    /// What the library takes.
    pub footprint: Footprint,
}

/// A generation in a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GenerationReport {
    /// The app.
    pub app: String,
    /// The generation's number.
    pub generation: u64,
    /// The plugin's version.
    pub version: String,
    /// The first digits of the library's hash.
    pub hash: String,
    /// What it does: `serving`, `draining` or `kept`.
    pub state: String,
    /// Whether it panicked too often to get requests.
    pub quarantined: bool,
    /// When it was started.
    pub since: SystemTime,
    /// How long ago it was replaced or removed.
    pub replaced: Option<Duration>,
    /// Requests that are in it.
    pub in_flight: u64,
    /// Requests that it got.
    pub requests: u64,
    /// Responses of status 5xx.
    pub errors: u64,
    /// Panics.
    pub panics: u64,
    /// What its library takes.
    pub footprint: Footprint,
}
