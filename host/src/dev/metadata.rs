//! The answer of `cargo metadata`, as far as a session needs it (The Cargo Book, cargo metadata).

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use serde::Deserialize;

/// A workspace, all of its packages, and the packages that they depend on.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<MetadataPackage>,
    pub(super) workspace_members: Vec<String>,
    pub(super) workspace_root: PathBuf,
    pub(super) target_directory: PathBuf,
    resolve: Option<DependencyGraph>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MetadataPackage {
    pub(super) id: String,
    pub(super) name: String,
    /// The registry or repository of the package; `None` for a package on this machine.
    pub(super) source: Option<String>,
    pub(super) manifest_path: PathBuf,
    targets: Vec<BuildTarget>,
}

/// A library, program, test, or build script of a package.
#[derive(Debug, Deserialize)]
struct BuildTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct DependencyGraph {
    nodes: Vec<DependencyNode>,
}

/// A package and the packages that it directly depends on, by id.
#[derive(Debug, Deserialize)]
struct DependencyNode {
    id: String,
    dependencies: Vec<String>,
}

impl MetadataPackage {
    /// Returns whether the package makes a library that a host can load.
    pub(super) fn is_plugin(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.kind);
        kinds.any(|kind| kind == "cdylib")
    }

    /// Returns the Rust name of the package's first target: its library, or a program when it has no
    /// library.
    pub(super) fn library(&self) -> Option<String> {
        Some(self.targets.first()?.name.replace('-', "_"))
    }
}

impl Metadata {
    /// Returns the ids of the packages that these packages depend on, directly or not, and their own.
    pub(super) fn used_by<'a>(
        &'a self,
        packages: impl Iterator<Item = &'a str>,
    ) -> BTreeSet<&'a str> {
        let nodes = self.resolve.iter().flat_map(|graph| &graph.nodes);
        let nodes: HashMap<&str, &[String]> =
            nodes.map(|node| (&*node.id, &*node.dependencies)).collect();
        let mut next: Vec<&str> = packages.collect();
        let mut used = BTreeSet::new();
        while let Some(package) = next.pop() {
            if used.insert(package) {
                let dependencies = nodes.get(package).copied().unwrap_or_default();
                next.extend(dependencies.iter().map(String::as_str));
            }
        }
        used
    }
}
