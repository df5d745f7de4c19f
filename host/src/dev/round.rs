//! One round of a session: ask Cargo for the projects, build them, put new libraries into the plugins
//! folder, and wait until the server serves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    cargo::{self, CargoEvent, CargoOptions},
    outcome::{self, LibraryOutcome},
    profile::BuildProfile,
    project::{Project, ProjectError},
};
use crate::error_chain::chain;

/// The input of a round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// The paths that the author named.
    pub(super) paths: Vec<PathBuf>,
    /// The projects at these paths, as Cargo described them in an earlier round. When empty, the round
    /// asks Cargo.
    pub(super) projects: Vec<Project>,
    /// Options of Cargo that the author gave.
    pub(super) cargo_options: Vec<String>,
    /// The plugins folder of the server.
    pub(super) plugins: PathBuf,
    /// The control socket of the server.
    pub(super) control: PathBuf,
    /// The libraries in the plugins folder, by file name.
    pub(super) installed: BTreeMap<String, LibraryStamp>,
}

/// Identifies a version of a library, because Cargo writes a new file for each version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LibraryStamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// The result of a round.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundOutcome {
    /// The projects, as Cargo describes them now. Empty when Cargo could not describe them.
    pub(super) projects: Vec<Project>,
    /// The time from the start of the round to the end of the build.
    pub(super) build_time: Duration,
    /// The time from the end of the build until every new library served or was rejected.
    pub(super) swap_time: Duration,
    /// Whether all plugins were built and copied.
    pub(super) is_built: bool,
    /// The compiler's output, or the reason why there was no build.
    pub(super) report: String,
    /// The paths of all libraries, in Cargo's target folder.
    pub(super) libraries: Vec<PathBuf>,
    /// The libraries that this round put into the plugins folder, by file name.
    pub(super) installed: BTreeMap<String, LibraryStamp>,
    /// For each library in `installed`, whether the server serves it.
    pub(super) outcomes: BTreeMap<String, LibraryOutcome>,
}

impl Round {
    /// Runs the round, and passes each line that Cargo prints to `on_event`. Dropping the future kills
    /// Cargo; libraries that were already put into the plugins folder stay there.
    pub(super) async fn run(mut self, mut on_event: impl FnMut(CargoEvent)) -> RoundOutcome {
        let started = Instant::now();
        let mut outcome = RoundOutcome::default();
        if self.projects.is_empty() {
            match read(&self.paths).await {
                Ok(projects) => self.projects = projects,
                Err(error) => {
                    outcome.report = format!("{}\n", chain(&error));
                    return outcome;
                }
            }
        }
        outcome.is_built = true;
        let mut built = BTreeMap::new();
        for project in &self.projects {
            let options = CargoOptions {
                given: self.cargo_options.clone(),
                profile: BuildProfile::find(&project.root),
            };
            match cargo::build(project, &options, &mut on_event).await {
                Ok(output) => {
                    outcome.is_built &= output.success;
                    outcome.report += &output.report;
                    built.extend(output.libraries);
                }
                Err(error) => {
                    outcome.is_built = false;
                    outcome.report += &format!("error: cannot run cargo: {error}\n");
                }
            }
        }
        outcome.projects = self.projects;
        outcome.build_time = started.elapsed();
        outcome.libraries = built.into_values().collect();
        if outcome.is_built {
            let started = Instant::now();
            let installed = install(&self.plugins, &self.installed, &mut outcome, &self.control);
            if let Err(error) = installed.await {
                outcome.is_built = false;
                outcome.report += &format!(
                    "error: cannot copy a library into {}: {error}\n",
                    self.plugins.display()
                );
            }
            outcome.swap_time = started.elapsed();
        }
        outcome
    }
}

/// Asks Cargo for the projects at these paths. Paths in one workspace become one project.
///
/// # Errors
///
/// Fails when a path holds no project, or none with a plugin.
pub(super) async fn read(paths: &[PathBuf]) -> Result<Vec<Project>, ProjectError> {
    let mut projects: Vec<Project> = Vec::new();
    for path in paths {
        let project = Project::read(path).await?;
        match projects.iter_mut().find(|other| other.root == project.root) {
            Some(other) => {
                // Cargo lists the packages of one workspace in the same order at each call.
                let new = project
                    .plugins
                    .into_iter()
                    .filter(|plugin| !other.plugins.contains(plugin));
                let new: Vec<_> = new.collect();
                other.plugins.extend(new);
                for (package, read) in other.packages.iter_mut().zip(project.packages) {
                    package.is_used |= read.is_used;
                }
            }
            None => projects.push(project),
        }
    }
    Ok(projects)
}

/// Puts the new libraries into the plugins folder, and waits until the server serves or rejects them.
/// A rename puts each file there complete, so that the server never reads half a library.
async fn install(
    plugins: &Path,
    installed: &BTreeMap<String, LibraryStamp>,
    outcome: &mut RoundOutcome,
    control: &Path,
) -> io::Result<()> {
    let mut hashes = BTreeMap::new();
    for library in &outcome.libraries {
        let Some(name) = library.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let stamp = LibraryStamp::of(library)?;
        if installed.get(name) == Some(&stamp) {
            continue;
        }
        // The copy lies beside the folder and not in it: on the same file system, so that a rename is
        // possible, but out of the server's sight.
        let copy = plugins.with_file_name(format!("{name}.new"));
        fs::copy(library, &copy)?;
        hashes.insert(name.to_owned(), blake3::hash(&fs::read(&copy)?).to_string());
        fs::rename(&copy, plugins.join(name))?;
        outcome.installed.insert(name.to_owned(), stamp);
    }
    if !hashes.is_empty() {
        outcome.outcomes = outcome::wait(control, &hashes).await;
    }
    Ok(())
}

impl LibraryStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Returns the names that plugins of two projects have in common. A session rejects them, because the
/// libraries of both would be one file in the plugins folder.
pub(super) fn duplicate_names(projects: &[Project]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    let names = projects.iter().flat_map(|project| &project.plugins);
    names
        .map(|plugin| &*plugin.name)
        .filter(|name| !seen.insert(*name))
        .collect()
}
