//! The report of all apps for an operator (`host ctl plugins`).
//!
//! The supervisor knows the apps. The workers report the numbers of each generation, and this module adds them up.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    app::{App, WorkerId},
    outcome::{LoadFailure, option_ms, rfc3339},
};
use crate::{
    orders::{GenerationReport, StepTimings, WorkerReport},
    resources::{Footprint, ProcessUsage},
};

/// All apps, and the resources that their libraries and the workers use.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReport {
    /// The apps by name, and removed apps whose last generation still drains.
    pub apps: Vec<AppReport>,
    /// The libraries that could not become an app.
    pub refused: Vec<LoadFailure>,
    /// The number of libraries that the running workers have loaded.
    pub loads: usize,
    /// About how many more libraries can be loaded, in the worker that can load the fewest.
    pub loads_left: usize,
    /// The memory of ended generations, including those of removed apps.
    pub retired: RetiredMemory,
    /// The resources of all worker processes together.
    pub process: ProcessUsage,
    /// The size of all private copies in bytes.
    pub copies_bytes: u64,
}

/// An app in a report.
#[derive(Clone, Debug, Serialize)]
pub struct AppReport {
    /// The app's name.
    pub name: String,
    /// The plugin's name.
    pub plugin: String,
    /// The library in the plugins folder.
    pub file: String,
    /// The mounts. Empty if the app was removed.
    pub mounts: Vec<String>,
    /// One of: `serving`; `probation` (serves, and the probation has not ended); `loading: ` and a step; `quarantined`
    /// (gets no requests because it panicked too often); `failed` (no generation serves); `removed`.
    pub state: String,
    /// The first digits of the hash of the library whose load begins after the current load. `None` if no load is
    /// queued.
    pub next: Option<String>,
    /// The generation that serves.
    pub serving: Option<GenerationView>,
    /// How long each step of the last load took.
    #[serde(rename = "ms")]
    pub timings: Option<StepTimings>,
    /// Replaced generations that still drain, or are kept for the probation.
    pub others: Vec<GenerationView>,
    /// The memory of the app's ended generations, whose libraries stay mapped.
    pub retired: RetiredMemory,
    /// Why the last load failed. `None` after a success.
    pub last_error: Option<LoadFailure>,
}

/// A generation. The numbers are sums over all workers that have the generation.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationView {
    /// The generation's number.
    pub generation: u64,
    /// The plugin's version.
    pub version: String,
    /// The first digits of the library's hash.
    pub hash: String,
    /// `serving`, `draining` or `kept`.
    pub state: String,
    /// When the first worker started the generation.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// How long ago the generation was replaced or removed, in milliseconds.
    #[serde(serialize_with = "option_ms", rename = "replaced_ms")]
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

/// The memory of ended generations, whose libraries stay mapped.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RetiredMemory {
    /// The number of ended generations.
    pub generations: usize,
    /// The memory of their libraries.
    pub footprint: Footprint,
}

impl RetiredMemory {
    fn add(&mut self, footprint: Footprint) {
        self.generations += 1;
        self.footprint.add(footprint);
    }
}

/// The facts that the supervisor itself knows, as input for a report.
pub(super) struct ReportInput<'a> {
    /// The apps. The flag is true for an app that was removed.
    pub(super) apps: Vec<(&'a App, bool)>,
    /// The libraries that could not become an app.
    pub(super) refused: Vec<LoadFailure>,
    /// The folder of private copies.
    pub(super) copies: PathBuf,
}

/// Returns the report of all apps, from the supervisor's facts and the reports of the workers.
pub(super) fn report(known: ReportInput<'_>, workers: &[(WorkerId, WorkerReport)]) -> ServerReport {
    let mut retired = RetiredMemory::default();
    for ended in workers.iter().flat_map(|(_, report)| &report.ended) {
        retired.add(ended.footprint);
    }
    let mut process = ProcessUsage::default();
    for (_, report) in workers {
        process.add(report.process);
    }
    let apps = known.apps.iter();
    let apps = apps.filter_map(|&(app, is_removed)| app_report(app, is_removed, workers));
    let loads_left = workers.iter().map(|(_, report)| report.loads_left);
    ServerReport {
        apps: apps.collect(),
        refused: known.refused,
        loads: workers.iter().map(|(_, report)| report.loads).sum(),
        loads_left: loads_left.min().unwrap_or_default(),
        retired,
        process,
        copies_bytes: bytes_in(&known.copies),
    }
}

/// Returns the report of one app. Returns `None` for a removed app that has no generation in any worker any more.
fn app_report(
    app: &App,
    is_removed: bool,
    workers: &[(WorkerId, WorkerReport)],
) -> Option<AppReport> {
    let mut serving: Option<GenerationView> = None;
    let mut others: Vec<GenerationView> = Vec::new();
    let mut is_quarantined = false;
    let reports = workers.iter().flat_map(|(_, report)| &report.generations);
    for generation in reports.filter(|generation| generation.app == app.name) {
        if generation.state == "serving" && !is_removed {
            is_quarantined |= generation.quarantined;
            if let Some(view) = GenerationView::add_to(serving.as_mut(), generation) {
                serving = Some(view);
            }
        } else {
            let same = others
                .iter_mut()
                .find(|view| view.generation == generation.generation);
            let new = GenerationView::add_to(same, generation);
            others.extend(new);
        }
    }
    if is_removed && others.is_empty() {
        return None;
    }
    let mut retired = RetiredMemory::default();
    let ended = workers.iter().flat_map(|(_, report)| &report.ended);
    for ended in ended.filter(|ended| ended.app == app.name) {
        retired.add(ended.footprint);
    }
    let next = app.loading().and_then(|loading| loading.next.as_ref());
    // The first state in this order that applies.
    let state = match (app.loading(), app.probation()) {
        _ if is_removed => "removed".to_owned(),
        (Some(loading), _) => format!("loading: {}", loading.step()),
        (None, Some(_)) if !is_quarantined => "probation".to_owned(),
        _ if is_quarantined => "quarantined".to_owned(),
        _ if app.serving.is_none() => "failed".to_owned(),
        _ => "serving".to_owned(),
    };
    Some(AppReport {
        name: app.name.clone(),
        plugin: app.plugin.clone(),
        file: app.library.display().to_string(),
        mounts: app.mounts.iter().map(|mount| mount.to_string()).collect(),
        state,
        next: next.map(|next| next.spec.hash.short()),
        serving,
        timings: app.timings,
        others,
        retired,
        last_error: app.last_error.clone(),
    })
}

impl GenerationView {
    /// Adds the numbers in the report of one worker to `view`. If `view` is `None`, returns a new view with these
    /// numbers.
    fn add_to(view: Option<&mut Self>, report: &GenerationReport) -> Option<Self> {
        let Some(view) = view else {
            return Some(Self {
                generation: report.generation,
                version: report.version.clone(),
                hash: report.hash.clone(),
                state: report.state.clone(),
                since: report.since,
                replaced: report.replaced,
                in_flight: report.in_flight,
                requests: report.requests,
                errors: report.errors,
                panics: report.panics,
                footprint: report.footprint,
            });
        };
        view.since = view.since.min(report.since);
        view.replaced = view.replaced.max(report.replaced);
        view.in_flight += report.in_flight;
        view.requests += report.requests;
        view.errors += report.errors;
        view.panics += report.panics;
        view.footprint.add(report.footprint);
        None
    }
}

/// Returns the size of all files in a folder in bytes.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.sum()
}
