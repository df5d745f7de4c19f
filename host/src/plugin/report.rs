//! What an operator is told of the plugins: what there is, and what came of a load.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    budget::Budget,
    load::{Took, as_ms},
    process::{Footprint, Process},
};

/// All apps, and what their loads cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The apps, by name, and those that were removed while their generations finish what they have.
    pub apps: Vec<AppReport>,
    /// The libraries that cannot be apps because another has their name or mount, or because they
    /// are none.
    pub refused: Vec<Failure>,
    /// How many libraries were loaded since the start.
    pub loads: usize,
    /// About how many more this process can load.
    pub loads_left: usize,
    /// What generations that have ended still take, those of apps that were removed too.
    pub retired: Retired,
    /// What the whole process has.
    pub process: Process,
    /// The copies of these generations, by the names of their apps.
    #[serde(skip)]
    pub ended: BTreeMap<&'static str, BTreeSet<PathBuf>>,
    /// Where the copies of libraries are.
    #[serde(skip)]
    pub folder: PathBuf,
    /// What is asked how many loads are left.
    #[serde(skip)]
    pub budget: Arc<Budget>,
}

/// An app.
#[derive(Clone, Debug, Serialize)]
pub struct AppReport {
    /// Its name.
    pub name: &'static str,
    /// The plugin that it is.
    pub plugin: &'static str,
    /// The library in the plugins folder.
    pub file: String,
    /// Where it is mounted: nowhere when it was removed.
    pub mounts: Vec<String>,
    /// `serving`; `probation`: serving, and the generation before is kept; `loading` and a step;
    /// `quarantined`: it panicked too often to be served; `failed`: there is nothing to serve;
    /// `removed`: its library went.
    pub state: String,
    /// The first digits of the hash of the library that is to be loaded after the one that is loading.
    pub next: Option<String>,
    /// The generation that serves.
    pub serving: Option<GenerationReport>,
    /// How long the last load took.
    #[serde(rename = "ms")]
    pub took: Option<Took>,
    /// Generations that are replaced: they finish what they have, or are kept for the probation.
    pub others: Vec<GenerationReport>,
    /// Generations that have ended, of which only the mapped library is left.
    pub retired: Retired,
    /// Why the last load failed; none when it did not.
    pub last_error: Option<Failure>,
}

/// A generation.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationReport {
    /// Its number.
    pub generation: u64,
    /// The plugin's version.
    pub version: String,
    /// The first digits of the library's hash.
    pub hash: String,
    /// What it does: `serving`, `draining` or `kept`.
    pub state: &'static str,
    /// When it was started.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// How long ago it was replaced or removed, in milliseconds.
    #[serde(serialize_with = "option_ms", rename = "replaced_ms")]
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
    /// The copy that it was loaded from.
    #[serde(skip)]
    pub copy: PathBuf,
}

/// What generations that have ended still take.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Retired {
    /// How many they are.
    pub generations: usize,
    /// What their libraries take.
    pub footprint: Footprint,
}

impl FromIterator<Footprint> for Retired {
    fn from_iter<I: IntoIterator<Item = Footprint>>(footprints: I) -> Self {
        let mut all = Self::default();
        for footprint in footprints {
            all.generations += 1;
            all.footprint.anonymous_bytes += footprint.anonymous_bytes;
            all.footprint.maps += footprint.maps;
        }
        all
    }
}

/// A load that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The library.
    pub file: String,
    /// The first digits of its hash, if it could be read.
    pub hash: Option<String>,
    /// What was being done.
    pub step: &'static str,
    /// What was wrong.
    pub error: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

/// What came of a load that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The app.
    pub name: &'static str,
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

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn option_ms<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_ms(time, serializer),
        None => serializer.serialize_none(),
    }
}
