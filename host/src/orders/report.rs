//! The report of a worker about its apps and resources.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::resources::{Footprint, ProcessUsage};

/// The apps and resources of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The generations that have not ended.
    pub generations: Vec<GenerationReport>,
    /// The generations that have ended.
    pub ended: Vec<EndedGeneration>,
    /// The number of loads so far, including failed loads.
    pub loads: usize,
    /// The estimated number of libraries that can still be loaded.
    pub loads_left: usize,
    /// The number of requests since the start of the worker.
    pub requests: u64,
    /// The resources of the process.
    pub process: ProcessUsage,
}

/// A generation that has ended. The memory of the library stays in use, because a library is never unloaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedGeneration {
    /// The app.
    pub app: String,
    /// The memory of the library.
    pub footprint: Footprint,
}

/// A generation that has not ended.
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
    /// `serving`, `draining`, or `kept`. A generation is `kept` while its successor is on probation.
    pub state: String,
    /// Whether the generation gets no requests because it panicked too often.
    pub quarantined: bool,
    /// When the generation was started.
    pub since: SystemTime,
    /// How long ago the generation was replaced or removed. `None` if the generation is not draining.
    pub replaced: Option<Duration>,
    /// The number of requests in flight.
    pub in_flight: u64,
    /// The number of requests since the start of the generation.
    pub requests: u64,
    /// The number of responses with status 5xx.
    pub errors: u64,
    /// The number of panics, in requests and elsewhere.
    pub panics: u64,
    /// The memory of the library.
    pub footprint: Footprint,
}
