//! The report of a worker.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::worker::process::{Footprint, ProcessUsage};

/// The apps and resources of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// All generations that have not ended.
    pub generations: Vec<GenerationReport>,
    /// The memory of each ended generation, whose library stays mapped.
    pub ended: Vec<EndedGeneration>,
    /// The number of libraries that were loaded.
    pub loads: usize,
    /// About how many more libraries can be loaded.
    pub loads_left: usize,
    /// Requests since the start of the worker.
    pub requests: u64,
    /// The resources of the process.
    pub process: ProcessUsage,
}

/// A generation that has ended. Its library stays mapped until the process exits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedGeneration {
    /// The app.
    pub app: String,
    /// The memory of the library.
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
    /// `serving`, `draining`, or `kept` for a probation.
    pub state: String,
    /// Whether the generation gets no requests because it panicked too often.
    pub quarantined: bool,
    /// When the generation was started.
    pub since: SystemTime,
    /// How long ago the generation was replaced or removed.
    pub replaced: Option<Duration>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests since the start of the generation.
    pub requests: u64,
    /// Responses of status 5xx.
    pub errors: u64,
    /// Panics.
    pub panics: u64,
    /// The memory of the library.
    pub footprint: Footprint,
}
