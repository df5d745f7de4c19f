//! The end of a round: reports the outcome to the author and the browsers, and stores the results for later rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::{Instant, SystemTime},
};

use super::Session;
use crate::dev::{
    cargo,
    outcome::LibraryOutcome,
    report::{self, print_line},
    round::RoundOutcome,
    state::{SessionPhase, SessionState},
};

impl Session {
    /// Handles the outcome of a round. Ignores the outcome if a newer build has replaced the round's build.
    pub(super) fn round_ended(&mut self, build: u64, outcome: RoundOutcome) {
        let Some(changed) = self.scheduler.build_ended(build) else {
            return;
        };
        report::show_compiler_output(&outcome.report);
        let edit_to_live = (!changed.is_empty()).then(|| self.changed_at.elapsed());
        print_line(&report::summary_line(&outcome, &changed, edit_to_live));
        let failures = &mut self.failed_starts;
        self.state
            .send_modify(|state| update_state(state, failures, &outcome));
        self.print_addresses(&outcome);
        self.store_results(outcome);
    }

    /// Prints the addresses of the apps, once in a session.
    fn print_addresses(&mut self, outcome: &RoundOutcome) {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.has_printed_addresses) else {
            return;
        };
        for library in outcome.outcomes.values() {
            let LibraryOutcome::Serves(apps) = library else {
                continue;
            };
            for app in apps {
                for mount in &app.mounts {
                    print_line(&format!("{} is at {origin}{mount}", app.name));
                    self.has_printed_addresses = true;
                }
            }
        }
    }

    /// Stores the installed libraries, the projects, and the files that the build has read. Requests another build if
    /// this build has missed changes.
    fn store_results(&mut self, outcome: RoundOutcome) {
        self.installed.extend(outcome.installed);
        let mut inputs = self.inputs();
        if !outcome.projects.is_empty() {
            inputs.set_projects(&outcome.projects);
        }
        let dep_infos = outcome.libraries.iter();
        let dep_infos =
            dep_infos.filter_map(|library| fs::read_to_string(cargo::dep_info_path(library)).ok());
        let new_inputs: Vec<_> = dep_infos
            .flat_map(|text| inputs.add_dep_info(&text))
            .collect();
        // Unlock here, because `watch_new_folders` below locks the inputs too.
        drop(inputs);
        if !outcome.projects.is_empty() {
            self.has_manifest_changed = false;
            self.projects = outcome.projects;
        }
        self.watcher.watch_new_folders();

        let pending = self.scheduler.take_pending().into_iter().flatten();
        // The new inputs were not watched during the build. Their modification times show whether they changed.
        let changed_unwatched = new_inputs
            .into_iter()
            .filter(|file| is_newer(file, self.build_started));
        let missed: BTreeSet<_> = pending.chain(changed_unwatched).collect();
        if !missed.is_empty() {
            self.request_build(missed, Instant::now());
        }
    }
}

/// Updates the session's state and the failed starts from the outcome of a round. `failures` maps the file names of
/// libraries in the plugins folder that do not start to the reasons. A round changes only the entries of libraries that
/// it has installed.
fn update_state(
    state: &mut SessionState,
    failures: &mut BTreeMap<String, String>,
    outcome: &RoundOutcome,
) {
    state.progress = None;
    for (file, library) in &outcome.outcomes {
        match library {
            LibraryOutcome::Serves(apps) => {
                failures.remove(file);
                let mounts = apps
                    .iter()
                    .map(|app| (app.name.clone(), app.mounts.clone()));
                state.apps.extend(mounts);
            }
            LibraryOutcome::Failed(error) => {
                failures.insert(file.clone(), error.clone());
            }
        }
    }
    if !outcome.is_built {
        state.phase = SessionPhase::BuildFailed;
        state.report.clone_from(&outcome.report);
    } else if !failures.is_empty() {
        let lines = failures.iter();
        let lines = lines.map(|(file, error)| format!("{file} does not start: {error}\n"));
        state.phase = SessionPhase::StartFailed;
        state.report = lines.collect();
    } else {
        state.phase = SessionPhase::Serving;
        state.report.clear();
        // Without a new library there was no swap, and browsers need not reload their pages.
        state.swaps += u64::from(!outcome.outcomes.is_empty());
    }
}

/// Returns whether a file was modified after `time`. Returns false if the file cannot be read.
fn is_newer(file: &PathBuf, time: SystemTime) -> bool {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified > time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::outcome::ServingApp;

    fn built(outcomes: &[(&str, LibraryOutcome)]) -> RoundOutcome {
        let outcomes = outcomes.iter().cloned();
        RoundOutcome {
            is_built: true,
            outcomes: outcomes
                .map(|(file, outcome)| (file.to_owned(), outcome))
                .collect(),
            ..RoundOutcome::default()
        }
    }

    fn serves(name: &str) -> LibraryOutcome {
        LibraryOutcome::Serves(vec![ServingApp {
            name: name.to_owned(),
            generation: 1,
            mounts: vec![format!("/{name}")],
        }])
    }

    #[test]
    fn a_start_that_failed_is_shown_until_that_library_starts() {
        let (mut state, mut failures) = (SessionState::default(), BTreeMap::new());
        let failed = LibraryOutcome::Failed("init: no database".to_owned());
        update_state(&mut state, &mut failures, &built(&[("libshop.so", failed)]));
        assert_eq!(state.phase, SessionPhase::StartFailed);

        // Neither a build without a new library nor one of another library mends the start.
        for outcome in [built(&[]), built(&[("libblog.so", serves("blog"))])] {
            state.phase = SessionPhase::Building;
            update_state(&mut state, &mut failures, &outcome);
            assert_eq!(state.phase, SessionPhase::StartFailed);
            assert_eq!(
                state.report,
                "libshop.so does not start: init: no database\n"
            );
        }

        update_state(
            &mut state,
            &mut failures,
            &built(&[("libshop.so", serves("shop"))]),
        );
        assert_eq!((state.phase, state.swaps), (SessionPhase::Serving, 1));
        assert_eq!(state.report, "");
        assert_eq!(state.apps.len(), 2);
    }

    #[test]
    fn sources_that_do_not_compile_are_a_report_and_no_swap() {
        let (mut state, mut failures) = (SessionState::default(), BTreeMap::new());
        let failed = RoundOutcome {
            report: "error: no\n".to_owned(),
            ..RoundOutcome::default()
        };
        update_state(&mut state, &mut failures, &failed);
        assert_eq!(state.phase, SessionPhase::BuildFailed);
        assert_eq!((&*state.report, state.swaps), ("error: no\n", 0));
        update_state(&mut state, &mut failures, &built(&[]));
        assert_eq!((state.phase, state.swaps), (SessionPhase::Serving, 0));
        assert_eq!(state.report, "");
    }
}
