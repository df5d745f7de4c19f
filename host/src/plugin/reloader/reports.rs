//! What an operator is told of what is there.

use std::{path::Path, sync::Arc};

use super::{App, Reloader, State};
use crate::plugin::{
    generation::Generation,
    process::{self, Footprint, Process},
    report::{AppReport, GenerationReport, Report, Retired},
};

impl Reloader {
    pub(super) fn report(&self) -> Report {
        let apps = self.apps.iter();
        let apps = apps.map(|(&name, app)| self.app_report(name, app));
        let removed = self.removed.iter().map(|(&name, app)| AppReport {
            state: "removed".to_owned(),
            ..self.app_report(name, app)
        });
        let mut apps: Vec<_> = apps
            .chain(removed.filter(|app| !app.others.is_empty()))
            .collect();
        apps.sort_by_key(|app| app.name);
        Report {
            apps,
            refused: self
                .refused
                .values()
                .map(|refused| refused.failure.clone())
                .collect(),
            loads: self.budget.loads(),
            loads_left: 0,
            retired: Retired::default(),
            process: Process::default(),
            ended: self.ended.clone(),
            folder: self.store.folder().to_owned(),
            budget: Arc::clone(&self.budget),
        }
    }

    fn app_report(&self, name: &'static str, app: &App) -> AppReport {
        let mut others: Vec<_> = self
            .retiring
            .iter()
            .filter(|retiring| retiring.generation.name == name)
            .map(|retiring| {
                let mut report = GenerationReport::new(&retiring.generation, "draining");
                report.replaced = Some(retiring.since.elapsed());
                report
            })
            .collect();
        let serving = app.serving.as_deref();
        let is_quarantined = serving.is_some_and(|serving| serving.faults.are_too_many());
        let mut following = None;
        let state = match &app.state {
            State::Loading { progress, next, .. } => {
                following = next.as_ref().map(|next| next.spec.hash.short());
                format!("loading: {}", progress.step().name())
            }
            State::Probation { kept } => {
                others.extend(
                    kept.as_deref()
                        .map(|kept| GenerationReport::new(kept, "kept")),
                );
                "probation".to_owned()
            }
            State::Resting if is_quarantined => "quarantined".to_owned(),
            State::Resting if app.serving.is_none() => "failed".to_owned(),
            State::Resting => "serving".to_owned(),
        };
        AppReport {
            name,
            plugin: app.plugin,
            file: app.library.display().to_string(),
            mounts: app.mounts.iter().map(|mount| mount.to_string()).collect(),
            state,
            next: following,
            serving: serving.map(|serving| GenerationReport::new(serving, "serving")),
            took: app.took,
            others,
            retired: Retired::default(),
            last_error: app.last_error.clone(),
        }
    }
}

impl GenerationReport {
    fn new(generation: &Generation, state: &'static str) -> Self {
        Self {
            generation: generation.number,
            version: generation.version.clone(),
            hash: generation.spec.hash.short(),
            state,
            since: generation.since,
            replaced: None,
            in_flight: generation.app.in_flight(),
            requests: generation.app.requests(),
            errors: generation.faults.errors(),
            panics: generation.faults.panics(),
            footprint: Footprint::default(),
            copy: generation.copy.clone(),
        }
    }
}

/// The report, with what the system tells filled in.
pub(super) fn measured(mut report: Report) -> Report {
    let footprints = process::footprints(&report.folder);
    let of = |copy: &Path| footprints.get(copy).copied().unwrap_or_default();
    for app in &mut report.apps {
        for generation in app.serving.iter_mut().chain(&mut app.others) {
            generation.footprint = of(&generation.copy);
        }
        let ended = report.ended.get(app.name).into_iter().flatten();
        app.retired = ended.map(|copy| of(copy)).collect();
    }
    let ended = report.ended.values().flatten();
    report.retired = ended.map(|copy| of(copy)).collect();
    report.loads_left = report.budget.left();
    report.process = Process::now();
    report
}
