//! Classifies changed files: decides whether a changed file needs a build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::project::Project;

/// The files and folders that builds and the server read.
#[derive(Clone, Debug, Default)]
pub(super) struct BuildInputs {
    /// The folder of each package, and whether a plugin depends on the package.
    packages: Vec<(PathBuf, bool)>,
    /// The files and folders that earlier builds have read, from Cargo's dep-info files.
    dep_info_paths: BTreeSet<PathBuf>,
    /// The workspace folders, whose `Cargo.toml` and `.cargo/config.toml` configure Cargo.
    roots: Vec<PathBuf>,
    /// The lock files with the hashes of their contents. A build may write a lock file again without a change, so only
    /// a new hash counts as a change. The hash is `None` if the file cannot be read.
    locks: BTreeMap<PathBuf, Option<blake3::Hash>>,
    /// The folders of static files (`--watch-dir`).
    asset_folders: Vec<PathBuf>,
    /// The author's configuration file of the server.
    config: Option<PathBuf>,
}

/// The kind of a changed file. Each kind needs another reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    /// A build reads the file: build again.
    Source,
    /// A static file: refresh pages.
    Asset,
    /// The author's configuration file of the server: reload the settings.
    Config,
    /// Any other file: do nothing.
    Other,
}

impl BuildInputs {
    /// Creates inputs without packages: [`set_projects`](Self::set_projects) adds them. `config` is the author's
    /// configuration file of the server.
    pub(super) fn new(asset_folders: Vec<PathBuf>, config: Option<PathBuf>) -> Self {
        Self {
            asset_folders,
            config,
            ..Self::default()
        }
    }

    /// Replaces all packages by the packages of `projects`, and hashes the lock files of the workspaces.
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

    /// Adds the files that a dep-info file lists. Returns the files that no earlier dep-info file has listed.
    pub(super) fn add_dep_info(&mut self, dep_info: &str) -> Vec<PathBuf> {
        let mut new = parse_dep_info(dep_info);
        new.retain(|path| self.dep_info_paths.insert(path.clone()));
        new
    }

    /// Returns all folders to watch. Every file whose change has a consequence is in one of these folders or below.
    pub(super) fn folders_to_watch(&self) -> BTreeSet<PathBuf> {
        let packages = self.packages.iter().filter(|(_, is_used)| *is_used);
        let packages = packages.map(|(folder, _)| folder.clone());
        let dep_info_folders = self.dep_info_paths.iter().filter_map(|path| {
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
            .chain(dep_info_folders)
            .chain(roots)
            .chain(self.asset_folders.iter().cloned())
            .collect()
    }

    /// Returns the folders of static files.
    pub(super) fn asset_folders(&self) -> &[PathBuf] {
        &self.asset_folders
    }

    /// Classifies a changed file. Reads the file if it is a lock file, to compare the hash.
    pub(super) fn classify(&self, path: &Path) -> InputKind {
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
        } else if self
            .asset_folders
            .iter()
            .any(|folder| path.starts_with(folder))
        {
            InputKind::Asset
        } else {
            InputKind::Other
        }
    }

    fn is_source(&self, path: &Path) -> bool {
        // Check the ancestors too: a build script may name a folder, and then every file in the folder is an input.
        if path
            .ancestors()
            .any(|path| self.dep_info_paths.contains(path))
        {
            return true;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_cargo_config = matches!(
            name,
            "Cargo.toml" | "rust-toolchain" | "rust-toolchain.toml"
        ) || path.ends_with(".cargo/config.toml");
        if is_cargo_config
            && self.roots.iter().any(|root| {
                path.parent() == Some(root) || path.parent() == Some(&root.join(".cargo"))
            })
        {
            return true;
        }
        // No dep-info file lists a new file, or a file that only a failed build has read. Therefore any Rust file in a
        // package that a plugin depends on counts as a source.
        let enclosing = self
            .packages
            .iter()
            .filter(|(folder, _)| path.starts_with(folder));
        // If packages are nested, the file belongs to the innermost package.
        let innermost = enclosing.max_by_key(|(folder, _)| folder.components().count());
        let is_rust =
            is_cargo_config || path.extension().is_some_and(|extension| extension == "rs");
        is_rust && innermost.is_some_and(|(_, is_used)| *is_used)
    }
}

/// Returns the paths that a dep-info file lists after `TARGET: `. Spaces separate the paths. A space within a path is
/// written `\ `.
fn parse_dep_info(dep_info: &str) -> Vec<PathBuf> {
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

/// Returns the hash of a file's contents, or `None` if the file cannot be read.
fn hash(path: &Path) -> Option<blake3::Hash> {
    fs::read(path).ok().map(|bytes| blake3::hash(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_info_lists_paths_with_spaces() {
        assert_eq!(
            parse_dep_info("/w/target/libshop.so: /w/src/lib.rs /w/my\\ page.html\n"),
            [
                PathBuf::from("/w/src/lib.rs"),
                PathBuf::from("/w/my page.html")
            ]
        );
        assert!(parse_dep_info("").is_empty());
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
        inputs.add_dep_info("/t/libshop.so: /w/src/lib.rs /w/page.html /w/proto");
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
            assert_eq!(inputs.classify(Path::new(path)), kind, "{path}");
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
        assert_eq!(inputs.classify(&lock), InputKind::Other);
        fs::write(&lock, "two").unwrap();
        assert_eq!(inputs.classify(&lock), InputKind::Source);
    }
}
