//! The report of all apps for an operator (`host ctl plugins`).
//!
//! The supervisor knows the apps. The numbers of each generation come from the workers and are summed
//! up here.

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
    worker::process::{Footprint, ProcessUsage},
};

/// All apps, and what their libraries cost.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReport {
    /// The apps by name, and removed apps whose last generation still drains.
    pub apps: Vec<AppReport>,
    /// The libraries that could not become an app.
    pub refused: Vec<LoadFailure>,
    /// The number of libraries that the running workers have loaded.
    pub loads: usize,
    /// About how many more libraries can be loaded, in the worker with the fewest left.
    pub loads_left: usize,
    /// The memory of ended generations, including those of removed apps.
    pub retired: Retired,
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
    /// The mounts; empty after a removal.
    pub mounts: Vec<String>,
    /// One of: `serving`; `probation` (serving, and the generation before is kept); `loading: ` and a step;
    /// `quarantined` (it panicked too often and gets no requests); `failed` (no generation serves);
    /// `removed`.
    pub state: String,
    /// The first digits of the hash of the library whose load is queued behind the current load.
    pub next: Option<String>,
    /// The generation that serves.
    pub serving: Option<GenerationView>,
    /// How long each step of the last load took.
    #[serde(rename = "ms")]
    pub timings: Option<StepTimings>,
    /// Replaced generations that still drain, or are kept for the probation.
    pub others: Vec<GenerationView>,
    /// Ended generations, of which only the mapped library is left.
    pub retired: Retired,
    /// Why the last load failed. `None` after a success.
    pub last_error: Option<LoadFailure>,
}

/// A generation, summed up over all workers that have it.
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
    /// When it was started.
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

/// The memory of ended generations.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Retired {
    /// The number of ended generations.
    pub generations: usize,
    /// The memory of their libraries.
    pub footprint: Footprint,
}

impl Retired {
    fn add(&mut self, footprint: Footprint) {
        self.generations += 1;
        self.footprint.add(footprint);
    }
}

/// The supervisor's own knowledge, as input for a report.
pub(super) struct ReportInput<'a> {
    /// The apps, each with whether it was removed.
    pub(super) apps: Vec<(&'a App, bool)>,
    /// The libraries that could not become an app.
    pub(super) refused: Vec<LoadFailure>,
    /// The folder of private copies.
    pub(super) copies: PathBuf,
}

/// Joins the supervisor's knowledge with the reports of the workers.
pub(super) fn report(known: ReportInput<'_>, workers: &[(WorkerId, WorkerReport)]) -> ServerReport {
    let mut retired = Retired::default();
    for ended in workers.iter().flat_map(|(_, report)| &report.ended) {
        retired.add(ended.footprint);
    }
    let mut process = ProcessUsage::default();
    for (_, report) in workers {
        process.add(report.process);
    }
    let apps = known.apps.iter();
    let apps = apps.filter_map(|&(app, is_removed)| app_report(app, is_removed, workers));
    let lefts = workers.iter().map(|(_, report)| report.loads_left);
    ServerReport {
        apps: apps.collect(),
        refused: known.refused,
        loads: workers.iter().map(|(_, report)| report.loads).sum(),
        loads_left: lefts.min().unwrap_or_default(),
        retired,
        process,
        copies_bytes: bytes_in(&known.copies),
    }
}

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
    let mut retired = Retired::default();
    let ended = workers.iter().flat_map(|(_, report)| &report.ended);
    for ended in ended.filter(|ended| ended.app == app.name) {
        retired.add(ended.footprint);
    }
    let next = app.loading().and_then(|loading| loading.next.as_ref());
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
    /// Adds the numbers of one worker to `view`. Without a view, returns a new one with these numbers.
    fn add_to(view: Option<&mut Self>, one: &GenerationReport) -> Option<Self> {
        let Some(view) = view else {
            return Some(Self {
                generation: one.generation,
                version: one.version.clone(),
                hash: one.hash.clone(),
                state: one.state.clone(),
                since: one.since,
                replaced: one.replaced,
                in_flight: one.in_flight,
                requests: one.requests,
                errors: one.errors,
                panics: one.panics,
                footprint: one.footprint,
            });
        };
        view.since = view.since.min(one.since);
        view.replaced = view.replaced.max(one.replaced);
        view.in_flight += one.in_flight;
        view.requests += one.requests;
        view.errors += one.errors;
        view.panics += one.panics;
        view.footprint.add(one.footprint);
        None
    }
}

/// Returns the size of all files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.sum()
}
