//! The output of a session in the terminal.

use std::{
    collections::BTreeSet,
    fmt::Write,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{cargo::strip_colours, outcome::LibraryOutcome, round::RoundOutcome};

/// Prints a line to stdout.
pub(super) fn print_line(text: &str) {
    println!("{text}");
}

/// Prints the compiler's output to stderr, with its colours if stderr is a terminal and `NO_COLOR` is
/// not set.
pub(super) fn show_compiler_output(report: &str) {
    let report = report.trim_end();
    if report.is_empty() {
        return;
    }
    let is_coloured = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if is_coloured {
        eprintln!("{report}");
    } else {
        eprintln!("{}", strip_colours(report));
    }
}

/// Returns a summary of a round in one line: the changed files, the times, and the apps that serve. `edit_to_live` is
/// the time from the edit until the new code served, or `None` if no edit caused the round.
pub(super) fn summary_line(
    round: &RoundOutcome,
    changed: &BTreeSet<PathBuf>,
    edit_to_live: Option<Duration>,
) -> String {
    let mut line = String::new();
    let roots: Vec<&Path> = round
        .projects
        .iter()
        .map(|project| &*project.root)
        .collect();
    if !changed.is_empty() {
        // Writing to a string never fails.
        let _ = write!(line, "{}: ", describe_files(changed, &roots));
    }
    let _ = write!(line, "built in {}", seconds(round.build_time));
    if !round.is_built {
        return line.replace("built in", "build failed after") + "; what served before serves on";
    }
    if round.outcomes.is_empty() {
        return line + ", and nothing is new";
    }
    let mut serving = Vec::new();
    let mut failed = Vec::new();
    for (file, outcome) in &round.outcomes {
        match outcome {
            LibraryOutcome::Serves(apps) => serving.extend(
                apps.iter()
                    .map(|app| format!("{}#{}", app.name, app.generation)),
            ),
            LibraryOutcome::Failed(error) => failed.push(format!("{file} does not start: {error}")),
        }
    }
    if !serving.is_empty() {
        let _ = write!(
            line,
            ", {} swapped in after {}",
            serving.join(", "),
            seconds(round.swap_time)
        );
    }
    if let (Some(time), []) = (edit_to_live, &*failed) {
        let _ = write!(line, ", edit → live {}", seconds(time));
    }
    for failure in failed {
        let _ = write!(line, "; {failure}");
    }
    line
}

/// Returns the paths of the first three files, and the number of further files. Paths are relative to their workspace.
fn describe_files(changed: &BTreeSet<PathBuf>, roots: &[&Path]) -> String {
    let relative = |path: &PathBuf| {
        let relative = roots.iter().find_map(|root| path.strip_prefix(root).ok());
        relative.unwrap_or(path).display().to_string()
    };
    let names: Vec<_> = changed.iter().take(3).map(relative).collect();
    let more = changed.len().saturating_sub(names.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    names.join(", ") + &more
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::outcome::ServingApp, *};

    fn round(outcome: Option<LibraryOutcome>) -> RoundOutcome {
        RoundOutcome {
            build_time: Duration::from_millis(710),
            swap_time: Duration::from_millis(30),
            is_built: true,
            outcomes: outcome
                .map(|outcome| ("libshop.so".to_owned(), outcome))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            ..RoundOutcome::default()
        }
    }

    #[test]
    fn a_round_is_one_line() {
        let changed = BTreeSet::from([PathBuf::from("src/lib.rs")]);
        let served = ServingApp {
            name: "shop".to_owned(),
            generation: 3,
            mounts: Vec::new(),
        };
        let live = Some(Duration::from_millis(810));
        assert_eq!(
            summary_line(
                &round(Some(LibraryOutcome::Serves(vec![served]))),
                &changed,
                live
            ),
            "src/lib.rs: built in 0.71 s, shop#3 swapped in after 0.03 s, edit → live 0.81 s"
        );
        let failed = LibraryOutcome::Failed("init: no database".to_owned());
        assert_eq!(
            summary_line(&round(Some(failed)), &changed, live),
            "src/lib.rs: built in 0.71 s; libshop.so does not start: init: no database"
        );
        assert_eq!(
            summary_line(&round(None), &changed, live),
            "src/lib.rs: built in 0.71 s, and nothing is new"
        );
        let failed = RoundOutcome {
            is_built: false,
            ..round(None)
        };
        assert_eq!(
            summary_line(&failed, &changed, live),
            "src/lib.rs: build failed after 0.71 s; what served before serves on"
        );
    }

    #[test]
    fn files_are_named_briefly() {
        let changed = ["/w/a", "/w/b", "/v/c", "/w/d", "/w/e"]
            .map(PathBuf::from)
            .into();
        assert_eq!(
            describe_files(&changed, &[Path::new("/w")]),
            "/v/c, a, b and 2 more"
        );
    }
}
