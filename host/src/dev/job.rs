//! One round of a session: read what Cargo knows, build, put libraries into the plugins folder, and
//! see that they serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    cargo::{self, Heard, How},
    live::{self, Fate},
    project::{Project, ProjectError},
    speed::Speed,
};

/// What to do, and what is known from the round before.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The paths that the author named.
    pub(super) paths: Vec<PathBuf>,
    /// What Cargo knew; nothing when it has to be asked.
    pub(super) projects: Vec<Project>,
    /// Options of Cargo.
    pub(super) options: Vec<String>,
    /// The plugins folder of the server.
    pub(super) plugins: PathBuf,
    /// Its control socket.
    pub(super) control: PathBuf,
    /// The libraries that were put there, by file name.
    pub(super) installed: BTreeMap<String, Stamp>,
}

/// What tells one version of a library from another: Cargo writes a new file for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// What came of a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    /// What Cargo knows now.
    pub(super) projects: Vec<Project>,
    /// How long Cargo took.
    pub(super) building: Duration,
    /// How long it then took until the last library served.
    pub(super) swapping: Duration,
    /// Whether all was built.
    pub(super) is_built: bool,
    /// What the compiler said, or why there was no build.
    pub(super) report: String,
    /// All libraries.
    pub(super) libraries: Vec<PathBuf>,
    /// The libraries that were put into the folder.
    pub(super) installed: BTreeMap<String, Stamp>,
    /// What became of those.
    pub(super) fates: BTreeMap<String, Fate>,
}

impl Job {
    /// Does it. When the future is dropped, Cargo is killed; what was put into the folder stays there.
    pub(super) async fn run(mut self, mut hear: impl FnMut(Heard)) -> Round {
        let began = Instant::now();
        let mut round = Round::default();
        if self.projects.is_empty() {
            match read(&self.paths).await {
                Ok(projects) => self.projects = projects,
                Err(error) => {
                    round.report = format!("{}\n", crate::error_chain::chain(&error));
                    return round;
                }
            }
        }
        round.is_built = true;
        let mut built = BTreeMap::new();
        for project in &self.projects {
            let how = How {
                options: self.options.clone(),
                speed: Speed::find(&project.root),
            };
            match cargo::build(project, &how, &mut hear).await {
                Ok(project) => {
                    round.is_built &= project.success;
                    round.report += &project.report;
                    built.extend(project.libraries);
                }
                Err(error) => {
                    round.is_built = false;
                    round.report += &format!("error: cannot run cargo: {error}\n");
                }
            }
        }
        round.projects = self.projects;
        round.building = began.elapsed();
        round.libraries = built.into_values().collect();
        if round.is_built {
            let began = Instant::now();
            if let Err(error) =
                install(&self.plugins, &self.installed, &mut round, &self.control).await
            {
                round.is_built = false;
                round.report += &format!(
                    "error: cannot copy a library into {}: {error}\n",
                    self.plugins.display()
                );
            }
            round.swapping = began.elapsed();
        }
        round
    }
}

/// Asks Cargo for the projects at these paths. Paths in one workspace are one project.
///
/// # Errors
///
/// When a path has none.
pub(super) async fn read(paths: &[PathBuf]) -> Result<Vec<Project>, ProjectError> {
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
                for (package, read) in other.packages.iter_mut().zip(project.packages) {
                    package.is_used |= read.is_used;
                }
            }
            None => projects.push(project),
        }
    }
    Ok(projects)
}

/// Puts the libraries that are new into the plugins folder, each at once by a rename, and waits until
/// they serve or were refused.
async fn install(
    plugins: &Path,
    installed: &BTreeMap<String, Stamp>,
    round: &mut Round,
    control: &Path,
) -> io::Result<()> {
    let mut hashes = BTreeMap::new();
    for library in &round.libraries {
        let Some(name) = library.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let stamp = Stamp::of(library)?;
        if installed.get(name) == Some(&stamp) {
            continue;
        }
        let copy = plugins.with_file_name(format!("{name}.new"));
        fs::copy(library, &copy)?;
        hashes.insert(name.to_owned(), blake3::hash(&fs::read(&copy)?).to_string());
        fs::rename(&copy, plugins.join(name))?;
        round.installed.insert(name.to_owned(), stamp);
    }
    if !hashes.is_empty() {
        round.fates = live::wait(control, &hashes).await;
    }
    Ok(())
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// The files of these that a plugin of another project has as well: both would be one file in the
/// plugins folder.
pub(super) fn doubles(projects: &[Project]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    let names = projects.iter().flat_map(|project| &project.plugins);
    names
        .map(|plugin| &*plugin.name)
        .filter(|name| !seen.insert(*name))
        .collect()
}
