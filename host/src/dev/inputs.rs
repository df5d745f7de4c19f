//! Which files a build reads, and so which changes matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::project::Project;

/// What is known of the files that builds read.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    /// The folders of packages, and whether a plugin is made of each.
    packages: Vec<(PathBuf, bool)>,
    /// What Cargo said after the last build of each plugin: files and folders.
    listed: BTreeSet<PathBuf>,
    /// Files at the roots of workspaces that configure Cargo.
    roots: Vec<PathBuf>,
    /// The lock files as they were: Cargo itself writes them.
    locks: BTreeMap<PathBuf, Option<blake3::Hash>>,
    /// Folders of static files.
    assets: Vec<PathBuf>,
    /// The author's configuration file of the server.
    config: Option<PathBuf>,
}

/// What a changed file is to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Builds read it.
    Source,
    /// It is a static file.
    Asset,
    /// The server is configured by it.
    Config,
    /// Neither.
    Other,
}

impl Inputs {
    /// Begins with folders of static files, and the author's configuration file.
    pub(super) fn new(assets: Vec<PathBuf>, config: Option<PathBuf>) -> Self {
        Self {
            assets,
            config,
            ..Self::default()
        }
    }

    /// Takes the packages of these projects in place of those before.
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

    /// Adds what a dep-info file lists, which Cargo writes beside each library. The result is what was
    /// not known before.
    pub(super) fn list(&mut self, dep_info: &str) -> Vec<PathBuf> {
        let mut new = listed(dep_info);
        new.retain(|path| self.listed.insert(path.clone()));
        new
    }

    /// The folders that files which matter may be in.
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

    /// The folders of static files.
    pub(super) fn assets(&self) -> &[PathBuf] {
        &self.assets
    }

    /// What a file that changed is.
    pub(super) fn kind(&self, path: &Path) -> Kind {
        if let Some(before) = self.locks.get(path) {
            return if hash(path) == *before {
                Kind::Other
            } else {
                Kind::Source
            };
        }
        if self.config.as_deref() == Some(path) {
            Kind::Config
        } else if self.is_source(path) {
            Kind::Source
        } else if self.assets.iter().any(|folder| path.starts_with(folder)) {
            Kind::Asset
        } else {
            Kind::Other
        }
    }

    fn is_source(&self, path: &Path) -> bool {
        // A folder that a build script names counts with all that is in it.
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
        // A file that is new, or that was missing in a build that failed, is listed nowhere yet.
        let holders = self
            .packages
            .iter()
            .filter(|(folder, _)| path.starts_with(folder));
        let nearest = holders.max_by_key(|(folder, _)| folder.components().count());
        let is_rust = configures || path.extension().is_some_and(|extension| extension == "rs");
        is_rust && nearest.is_some_and(|(_, is_used)| *is_used)
    }
}

/// The paths in a dep-info file: what is behind the colon, where `\ ` is a space in a path.
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
        let mut inputs = Inputs::new(vec!["/w/static".into()], Some("/w/host.toml".into()));
        inputs.packages = vec![
            ("/w".into(), true),
            ("/w/other".into(), false),
            ("/shared".into(), true),
        ];
        inputs.roots = vec!["/w".into()];
        inputs.list("/t/libshop.so: /w/src/lib.rs /w/page.html /w/proto");
        for (path, kind) in [
            ("/w/src/lib.rs", Kind::Source),
            ("/w/src/new.rs", Kind::Source),
            ("/w/page.html", Kind::Source),
            ("/w/proto/greeter.proto", Kind::Source),
            ("/w/Cargo.toml", Kind::Source),
            ("/w/.cargo/config.toml", Kind::Source),
            ("/shared/src/lib.rs", Kind::Source),
            ("/w/static/style.css", Kind::Asset),
            ("/w/host.toml", Kind::Config),
            ("/w/other/src/lib.rs", Kind::Other),
            ("/w/src/.lib.rs.swp", Kind::Other),
            ("/w/src/4913", Kind::Other),
            ("/w/notes.db", Kind::Other),
            ("/elsewhere/lib.rs", Kind::Other),
        ] {
            assert_eq!(inputs.kind(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_lock_file_matters_when_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("Cargo.lock");
        fs::write(&lock, "one").unwrap();
        let inputs = Inputs {
            locks: BTreeMap::from([(lock.clone(), hash(&lock))]),
            ..Inputs::default()
        };
        assert_eq!(inputs.kind(&lock), Kind::Other);
        fs::write(&lock, "two").unwrap();
        assert_eq!(inputs.kind(&lock), Kind::Source);
    }
}
