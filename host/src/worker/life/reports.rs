//! Creates the report of a worker about its apps and resources.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::task;

use super::{Worker, WorkerTaskOutcome};
use crate::{
    apps::generation::Generation,
    orders::{EndedGeneration, GenerationReport, WorkerReport},
    resources::{self, Footprint, ProcessUsage},
};

impl Worker {
    /// Starts a task that creates the report. The list of generations is that of the moment of this call.
    pub(super) fn report(&mut self, number: u64) {
        let mut generations = Vec::new();
        for app in self.apps.values() {
            let serving = app.serving.iter().map(|serving| (serving, "serving"));
            let previous = app.previous.iter().map(|previous| (previous, "kept"));
            for (generation, state) in serving.chain(previous) {
                generations.push((Arc::clone(generation), state, None));
            }
        }
        for retiring in &self.retiring {
            let replaced = retiring.since.elapsed();
            generations.push((Arc::clone(&retiring.generation), "draining", Some(replaced)));
        }
        // The task gets copies and shared references, because only the main loop may use the state of the worker.
        let ended = self.ended.clone();
        let budget = Arc::clone(&self.budget);
        let current_requests = generations
            .iter()
            .map(|(generation, ..)| generation.app.requests());
        let requests = self.ended_requests + current_requests.sum::<u64>();
        self.tasks.spawn(async move {
            // Reading `/proc/self/smaps` takes long after many loads, so it runs on a blocking thread.
            let report = task::spawn_blocking(move || {
                let mapped = generations
                    .iter()
                    .map(|(generation, ..)| &generation.staged_path);
                let copies: HashSet<_> = mapped
                    .chain(ended.iter().map(|(_, copy)| copy))
                    .cloned()
                    .collect();
                let footprints = resources::footprints(&copies);
                let generations =
                    generations
                        .iter()
                        .map(|(generation, state, replaced)| GenerationReport {
                            replaced: *replaced,
                            ..generation_report(generation, state, &footprints)
                        });
                let ended = ended.into_iter().map(|(app, copy)| EndedGeneration {
                    app,
                    footprint: footprints.get(&copy).copied().unwrap_or_default(),
                });
                WorkerReport {
                    generations: generations.collect(),
                    ended: ended.collect(),
                    loads: budget.loads(),
                    loads_left: budget.remaining_loads(),
                    requests,
                    process: ProcessUsage::now(),
                }
            });
            WorkerTaskOutcome::Reported {
                number,
                // An empty report if the task panicked, so that the supervisor still gets its answer.
                report: Box::new(report.await.unwrap_or_default()),
            }
        });
    }
}

/// Returns the report of a generation, except `replaced`.
fn generation_report(
    generation: &Generation,
    state: &str,
    footprints: &HashMap<PathBuf, Footprint>,
) -> GenerationReport {
    let footprint = footprints.get(&generation.staged_path).copied();
    GenerationReport {
        app: generation.name.to_owned(),
        generation: generation.number,
        version: generation.version.clone(),
        hash: generation.spec.hash.short(),
        state: state.to_owned(),
        quarantined: generation.faults.is_quarantined(),
        since: generation.started_at,
        replaced: None,
        in_flight: generation.app.in_flight(),
        requests: generation.app.requests(),
        errors: generation.faults.errors(),
        panics: generation.faults.panics(),
        footprint: footprint.unwrap_or_default(),
    }
}
