//! The end of a round: tells the author and the browsers, and keeps what the round has learnt.

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
    report::{self, say},
    round::RoundOutcome,
    state::{SessionPhase, SessionState},
};

impl Session {
    /// Takes in the outcome of a round, unless another build has replaced its build.
    pub(super) fn round_ended(&mut self, build: u64, outcome: RoundOutcome) {
        let Some(changed) = self.scheduler.finished(build) else {
            return;
        };
        report::show(&outcome.report);
        let live = (!changed.is_empty()).then(|| self.changed_at.elapsed());
        say(&report::line(&outcome, &changed, live));
        let failures = &mut self.failed_starts;
        self.state
            .send_modify(|state| update(state, failures, &outcome));
        self.tell_addresses(&outcome);
        self.learn(outcome);
    }

    /// Prints the addresses of the apps, once in a session.
    fn tell_addresses(&mut self, outcome: &RoundOutcome) {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.has_told_addresses) else {
            return;
        };
        for library in outcome.outcomes.values() {
            let LibraryOutcome::Serves(apps) = library else {
                continue;
            };
            for app in apps {
                for mount in &app.mounts {
                    say(&format!("{} is at {origin}{mount}", app.name));
                    self.has_told_addresses = true;
                }
            }
        }
    }

    /// Remembers the installed libraries, the projects, and the files that the build has read. Starts
    /// another build for changes that this one has missed.
    fn learn(&mut self, outcome: RoundOutcome) {
        self.installed.extend(outcome.installed);
        let mut inputs = self.inputs();
        if !outcome.projects.is_empty() {
            inputs.set_projects(&outcome.projects);
        }
        let dep_infos = outcome.libraries.iter();
        let dep_infos =
            dep_infos.filter_map(|library| fs::read_to_string(cargo::dep_info(library)).ok());
        let new: Vec<_> = dep_infos.flat_map(|text| inputs.list(&text)).collect();
        drop(inputs);
        if !outcome.projects.is_empty() {
            self.is_stale = false;
            self.projects = outcome.projects;
        }
        self.watcher.update();

        let late = self.scheduler.take_late().into_iter().flatten();
        // Nobody watched the new files during the build, so their times tell whether they changed.
        let unwatched = new
            .into_iter()
            .filter(|file| is_newer(file, self.build_started));
        let missed: BTreeSet<_> = late.chain(unwatched).collect();
        if !missed.is_empty() {
            self.build(missed, Instant::now());
        }
    }
}

/// Brings the state that browsers see up to date with the outcome of a round. `failures` are the libraries
/// in the plugins folder that do not start, with the reasons. A round that installs nothing new leaves
/// them as they are.
fn update(
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
        state.swaps += u64::from(!outcome.outcomes.is_empty());
    }
}

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
        update(&mut state, &mut failures, &built(&[("libshop.so", failed)]));
        assert_eq!(state.phase, SessionPhase::StartFailed);

        // Neither a build without a new library nor one of another library mends the start.
        for outcome in [built(&[]), built(&[("libblog.so", serves("blog"))])] {
            state.phase = SessionPhase::Building;
            update(&mut state, &mut failures, &outcome);
            assert_eq!(state.phase, SessionPhase::StartFailed);
            assert_eq!(
                state.report,
                "libshop.so does not start: init: no database\n"
            );
        }

        update(
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
        update(&mut state, &mut failures, &failed);
        assert_eq!(state.phase, SessionPhase::BuildFailed);
        assert_eq!((&*state.report, state.swaps), ("error: no\n", 0));
        update(&mut state, &mut failures, &built(&[]));
        assert_eq!((state.phase, state.swaps), (SessionPhase::Serving, 0));
        assert_eq!(state.report, "");
    }
}
