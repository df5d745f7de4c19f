//! The part of the output of `cargo metadata` that a session needs (The Cargo Book, cargo metadata).

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use serde::Deserialize;

/// A workspace: its own packages, and the packages that they depend on.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    /// The packages of the workspace and all of their dependencies.
    pub(super) packages: Vec<MetadataPackage>,
    /// The ids of the workspace's own packages.
    pub(super) workspace_members: Vec<String>,
    pub(super) workspace_root: PathBuf,
    pub(super) target_directory: PathBuf,
    resolve: Option<DependencyGraph>,
}

/// A package, as Cargo describes it.
#[derive(Debug, Deserialize)]
pub(super) struct MetadataPackage {
    /// Cargo's unique id of the package.
    pub(super) id: String,
    pub(super) name: String,
    /// The registry or repository that the package comes from, or `None` if the package is a folder on this machine.
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

/// The dependencies of all packages.
#[derive(Debug, Deserialize)]
struct DependencyGraph {
    nodes: Vec<DependencyNode>,
}

/// The id of a package, and the ids of its direct dependencies.
#[derive(Debug, Deserialize)]
struct DependencyNode {
    id: String,
    dependencies: Vec<String>,
}

impl MetadataPackage {
    /// Returns whether the build of the package makes a library that a host can load (a cdylib).
    pub(super) fn is_plugin(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.kind);
        kinds.any(|kind| kind == "cdylib")
    }

    /// Returns the Rust name of the package's first target: its library, or a program if the package has no library.
    /// Returns `None` if the package has no target.
    pub(super) fn library_name(&self) -> Option<String> {
        Some(self.targets.first()?.name.replace('-', "_"))
    }
}

impl Metadata {
    /// Returns the ids of `packages` and of all packages that they depend on, directly or indirectly.
    pub(super) fn with_dependencies<'a>(
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
