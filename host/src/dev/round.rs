//! One round of a session: read the projects from Cargo, build them, put new libraries into the plugins folder, and
//! wait until the server serves or rejects these libraries.

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

/// The input of a round. [`run`](Self::run) consumes the value.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// The paths that the author named.
    pub(super) paths: Vec<PathBuf>,
    /// The projects at these paths, as an earlier round read them from Cargo. If empty, the round reads them.
    pub(super) projects: Vec<Project>,
    /// Options of Cargo from the command line of `host dev`.
    pub(super) cargo_options: Vec<String>,
    /// The plugins folder of the server.
    pub(super) plugins: PathBuf,
    /// The control socket of the server.
    pub(super) control: PathBuf,
    /// The libraries that earlier rounds put into the plugins folder, by file name.
    pub(super) installed: BTreeMap<String, LibraryStamp>,
}

/// Identifies a version of a library without reading the file. Cargo writes a new file for each version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LibraryStamp {
    inode: u64,
    len: u64,
    /// The time of the last change: seconds since the Unix epoch, and nanoseconds.
    modified: (i64, i64),
}

/// The result of a round.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundOutcome {
    /// The projects that were built. Empty if they could not be read from Cargo.
    pub(super) projects: Vec<Project>,
    /// The time from the start of the round to the end of the build.
    pub(super) build_time: Duration,
    /// The time from the end of the build until the server served or rejected every new library.
    pub(super) swap_time: Duration,
    /// Whether all plugins were built and copied.
    pub(super) is_built: bool,
    /// The compiler's output, or the reason why no build ran.
    pub(super) report: String,
    /// The paths of all libraries that the build made, in Cargo's target folder.
    pub(super) libraries: Vec<PathBuf>,
    /// The libraries that this round put into the plugins folder, by file name.
    pub(super) installed: BTreeMap<String, LibraryStamp>,
    /// The server's result for each library in `installed`, by file name.
    pub(super) outcomes: BTreeMap<String, LibraryOutcome>,
}

impl Round {
    /// Runs the round, and passes each line of Cargo's stderr to `on_event`. Dropping the future kills Cargo. Libraries
    /// that are already in the plugins folder stay there.
    pub(super) async fn run(mut self, mut on_event: impl FnMut(CargoEvent)) -> RoundOutcome {
        let started = Instant::now();
        let mut outcome = RoundOutcome::default();
        if self.projects.is_empty() {
            match read_projects(&self.paths).await {
                Ok(projects) => self.projects = projects,
                Err(error) => {
                    outcome.report = format!("{}\n", chain(&error));
                    return outcome;
                }
            }
        }
        outcome.is_built = true;
        let mut built = BTreeMap::new();
        // Build the other projects after a failure too, so that the report contains the errors of all projects.
        for project in &self.projects {
            let options = CargoOptions {
                author_options: self.cargo_options.clone(),
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

/// Reads the projects at these paths with `cargo metadata`. Paths in the same workspace become one project.
///
/// # Errors
///
/// Fails when a path contains no project, or when a project has no plugin.
pub(super) async fn read_projects(paths: &[PathBuf]) -> Result<Vec<Project>, ProjectError> {
    let mut projects: Vec<Project> = Vec::new();
    for path in paths {
        let project = Project::read(path).await?;
        match projects.iter_mut().find(|other| other.root == project.root) {
            Some(other) => {
                let new = project
                    .plugins
                    .into_iter()
                    .filter(|plugin| !other.plugins.contains(plugin));
                let new: Vec<_> = new.collect();
                other.plugins.extend(new);
                // `zip` works because Cargo lists the packages of a workspace in the same order in each call.
                for (package, read) in other.packages.iter_mut().zip(project.packages) {
                    package.is_used |= read.is_used;
                }
            }
            None => projects.push(project),
        }
    }
    Ok(projects)
}

/// Puts the new libraries into the plugins folder, and waits until the server serves or rejects them. `installed` are
/// the libraries that are in the folder already.
///
/// # Errors
///
/// Fails when a library cannot be read or copied.
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
        // Read the stamp before the copy. If Cargo replaces the library in between, the stamp is the old one, and the
        // next round copies the library again.
        let stamp = LibraryStamp::of(library)?;
        if installed.get(name) == Some(&stamp) {
            continue;
        }
        // Copy to a path beside the plugins folder, and then rename: the server sees only complete files. The copy is
        // on the same file system, because a rename cannot cross file systems, but not in the folder that the server
        // watches.
        let copy = plugins.with_file_name(format!("{name}.new"));
        fs::copy(library, &copy)?;
        // Hash the copy: the server reports the hash of exactly these bytes.
        hashes.insert(name.to_owned(), blake3::hash(&fs::read(&copy)?).to_string());
        fs::rename(&copy, plugins.join(name))?;
        outcome.installed.insert(name.to_owned(), stamp);
    }
    if !hashes.is_empty() {
        outcome.outcomes = outcome::wait_for_outcomes(control, &hashes).await;
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

/// Returns the names that more than one plugin has. A session rejects such names, because the libraries of both plugins
/// would be the same file in the plugins folder.
pub(super) fn duplicate_names(projects: &[Project]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    let names = projects.iter().flat_map(|project| &project.plugins);
    names
        .map(|plugin| &*plugin.name)
        .filter(|name| !seen.insert(*name))
        .collect()
}
