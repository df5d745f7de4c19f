//! The files that builds read: decides for a changed file whether it needs a build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::project::Project;

/// Everything that is known of the files that builds and the server read.
#[derive(Clone, Debug, Default)]
pub(super) struct BuildInputs {
    /// The folders of packages, and whether a plugin depends on the package.
    packages: Vec<(PathBuf, bool)>,
    /// The files and folders that the dep-info files of earlier builds list.
    listed: BTreeSet<PathBuf>,
    /// The workspace folders, whose `Cargo.toml` and `.cargo/config.toml` configure Cargo.
    roots: Vec<PathBuf>,
    /// The lock files with the hashes of their contents. Cargo writes a lock file at every build, so
    /// only other contents count as a change.
    locks: BTreeMap<PathBuf, Option<blake3::Hash>>,
    /// Folders of static files.
    assets: Vec<PathBuf>,
    /// The author's configuration file of the server.
    config: Option<PathBuf>,
}

/// The consequence of a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    /// A build reads the file: build again.
    Source,
    /// A static file: refresh pages.
    Asset,
    /// The author's configuration file of the server: reload the settings.
    Config,
    /// No consequence.
    Other,
}

impl BuildInputs {
    /// Starts with the folders of static files and the author's configuration file. Packages follow by
    /// [`set_projects`](Self::set_projects).
    pub(super) fn new(assets: Vec<PathBuf>, config: Option<PathBuf>) -> Self {
        Self {
            assets,
            config,
            ..Self::default()
        }
    }

    /// Replaces the packages by those of these projects, and reads their lock files.
    pub(super) fn set_projects(&mut self, projects: &[Project]) {
        let packages = projects.iter().flat_map(|project| &project.packages);
        self.packages = packages
            .map(|package| (package.folder.clone(), package.is_used))
            .collect();
        self.roots = projects
            .iter()
            .map(|project| project.root.clone())
            .collect();
        let locks = self.roots.iter().map(|root| root.join("Cargo.lock"));
        self.locks = locks.map(|lock| (lock.clone(), hash(&lock))).collect();
    }

    /// Adds the files that a dep-info file lists. Returns those that no earlier dep-info file has listed.
    pub(super) fn list(&mut self, dep_info: &str) -> Vec<PathBuf> {
        let mut new = listed(dep_info);
        new.retain(|path| self.listed.insert(path.clone()));
        new
    }

    /// Returns all folders to watch: every file that matters is in one of them or below.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let packages = self.packages.iter().filter(|(_, is_used)| *is_used);
        let packages = packages.map(|(folder, _)| folder.clone());
        let listed = self.listed.iter().filter_map(|path| {
            if path.is_dir() {
                Some(path.clone())
            } else {
                path.parent().map(Path::to_owned)
            }
        });
        let roots = self.roots.iter().cloned();
        let config = self.config.as_deref().and_then(Path::parent);
        packages
            .chain(config.map(Path::to_owned))
            .chain(listed)
            .chain(roots)
            .chain(self.assets.iter().cloned())
            .collect()
    }

    /// Returns the folders of static files.
    pub(super) fn assets(&self) -> &[PathBuf] {
        &self.assets
    }

    /// Classifies a file that has changed. Reads a lock file to compare its contents.
    pub(super) fn kind(&self, path: &Path) -> InputKind {
        if let Some(before) = self.locks.get(path) {
            return if hash(path) == *before {
                InputKind::Other
            } else {
                InputKind::Source
            };
        }
        if self.config.as_deref() == Some(path) {
            InputKind::Config
        } else if self.is_source(path) {
            InputKind::Source
        } else if self.assets.iter().any(|folder| path.starts_with(folder)) {
            InputKind::Asset
        } else {
            InputKind::Other
        }
    }

    fn is_source(&self, path: &Path) -> bool {
        // A build script may name a folder, which stands for every file in it.
        if path.ancestors().any(|path| self.listed.contains(path)) {
            return true;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let configures = matches!(
            name,
            "Cargo.toml" | "rust-toolchain" | "rust-toolchain.toml"
        ) || path.ends_with(".cargo/config.toml");
        if configures
            && self.roots.iter().any(|root| {
                path.parent() == Some(root) || path.parent() == Some(&root.join(".cargo"))
            })
        {
            return true;
        }
        // No dep-info file lists a new file, or one that a failed build has missed. Any Rust file in a
        // package that a plugin depends on may be such a file.
        let holders = self
            .packages
            .iter()
            .filter(|(folder, _)| path.starts_with(folder));
        // Of nested packages, the innermost one holds the file.
        let nearest = holders.max_by_key(|(folder, _)| folder.components().count());
        let is_rust = configures || path.extension().is_some_and(|extension| extension == "rs");
        is_rust && nearest.is_some_and(|(_, is_used)| *is_used)
    }
}

/// Returns the paths that a dep-info file lists after `TARGET: `. A space within a path is written `\ `.
fn listed(dep_info: &str) -> Vec<PathBuf> {
    let lines = dep_info.lines().filter_map(|line| line.split_once(": "));
    let mut paths = Vec::new();
    for (_, list) in lines {
        let mut path = String::new();
        let mut letters = list.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' if letters.peek() == Some(&' ') => path.extend(letters.next()),
                ' ' => paths.push(std::mem::take(&mut path)),
                letter => path.push(letter),
            }
        }
        paths.push(path);
    }
    paths
        .into_iter()
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect()
}

fn hash(path: &Path) -> Option<blake3::Hash> {
    fs::read(path).ok().map(|bytes| blake3::hash(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_info_lists_paths_with_spaces() {
        assert_eq!(
            listed("/w/target/libshop.so: /w/src/lib.rs /w/my\\ page.html\n"),
            [
                PathBuf::from("/w/src/lib.rs"),
                PathBuf::from("/w/my page.html")
            ]
        );
        assert!(listed("").is_empty());
    }

    #[test]
    fn a_change_matters_when_a_build_reads_the_file() {
        let mut inputs = BuildInputs::new(vec!["/w/static".into()], Some("/w/host.toml".into()));
        inputs.packages = vec![
            ("/w".into(), true),
            ("/w/other".into(), false),
            ("/shared".into(), true),
        ];
        inputs.roots = vec!["/w".into()];
        inputs.list("/t/libshop.so: /w/src/lib.rs /w/page.html /w/proto");
        for (path, kind) in [
            ("/w/src/lib.rs", InputKind::Source),
            ("/w/src/new.rs", InputKind::Source),
            ("/w/page.html", InputKind::Source),
            ("/w/proto/greeter.proto", InputKind::Source),
            ("/w/Cargo.toml", InputKind::Source),
            ("/w/.cargo/config.toml", InputKind::Source),
            ("/shared/src/lib.rs", InputKind::Source),
            ("/w/static/style.css", InputKind::Asset),
            ("/w/host.toml", InputKind::Config),
            ("/w/other/src/lib.rs", InputKind::Other),
            ("/w/src/.lib.rs.swp", InputKind::Other),
            ("/w/src/4913", InputKind::Other),
            ("/w/notes.db", InputKind::Other),
            ("/elsewhere/lib.rs", InputKind::Other),
        ] {
            assert_eq!(inputs.kind(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_lock_file_matters_when_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("Cargo.lock");
        fs::write(&lock, "one").unwrap();
        let inputs = BuildInputs {
            locks: BTreeMap::from([(lock.clone(), hash(&lock))]),
            ..BuildInputs::default()
        };
        assert_eq!(inputs.kind(&lock), InputKind::Other);
        fs::write(&lock, "two").unwrap();
        assert_eq!(inputs.kind(&lock), InputKind::Source);
    }
}
