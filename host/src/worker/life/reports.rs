//! Makes the report of a worker.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::task;

use super::{Worker, WorkerTaskOutcome};
use crate::{
    orders::{EndedGeneration, GenerationReport, WorkerReport},
    worker::{
        generation::Generation,
        process::{self, Footprint, ProcessUsage},
    },
};

impl Worker {
    pub(super) fn report(&mut self, number: u64) {
        let mut generations = Vec::new();
        for app in self.apps.values() {
            let serving = app.serving.iter().map(|serving| (serving, "serving"));
            let kept = app.kept.iter().map(|kept| (kept, "kept"));
            for (generation, state) in serving.chain(kept) {
                generations.push((Arc::clone(generation), state, None));
            }
        }
        for retiring in &self.retiring {
            let since = retiring.since.elapsed();
            generations.push((Arc::clone(&retiring.generation), "draining", Some(since)));
        }
        let ended = self.ended.clone();
        let budget = Arc::clone(&self.budget);
        let generations_there = generations.iter().map(|(there, ..)| there.app.requests());
        let requests = self.ended_requests + generations_there.sum::<u64>();
        self.tasks.spawn(async move {
            // Reading `/proc/self/smaps` takes long after many loads, so it runs on a blocking thread.
            let report = task::spawn_blocking(move || {
                let mapped = generations.iter().map(|(generation, ..)| &generation.copy);
                let copies: HashSet<_> = mapped
                    .chain(ended.iter().map(|(_, copy)| copy))
                    .cloned()
                    .collect();
                let footprints = process::footprints(&copies);
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
                    loads_left: budget.left(),
                    requests,
                    process: ProcessUsage::now(),
                }
            });
            WorkerTaskOutcome::Reported {
                number,
                report: Box::new(report.await.unwrap_or_default()),
            }
        });
    }
}

fn generation_report(
    generation: &Generation,
    state: &str,
    footprints: &HashMap<PathBuf, Footprint>,
) -> GenerationReport {
    let footprint = footprints.get(&generation.copy).copied();
    GenerationReport {
        app: generation.name.to_owned(),
        generation: generation.number,
        version: generation.version.clone(),
        hash: generation.spec.hash.short(),
        state: state.to_owned(),
        quarantined: generation.faults.is_quarantined(),
        since: generation.since,
        replaced: None,
        in_flight: generation.app.in_flight(),
        requests: generation.app.requests(),
        errors: generation.faults.errors(),
        panics: generation.faults.panics(),
        footprint: footprint.unwrap_or_default(),
    }
}
