//! What Cargo knows of the crates that are being developed: the plugins, and the packages whose
//! sources they are made of.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use tokio::process::Command;

/// A workspace, and what of it is being developed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    /// The manifest that the author named.
    pub(super) manifest: PathBuf,
    /// The folder of the workspace.
    pub(super) root: PathBuf,
    /// Where Cargo builds.
    pub(super) target: PathBuf,
    /// The packages that are plugins.
    pub(super) plugins: Vec<Plugin>,
    /// The packages with sources on this machine.
    pub(super) packages: Vec<Package>,
}

/// A package that is a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plugin {
    /// What Cargo calls the package.
    pub(super) id: String,
    /// The package's name.
    pub(super) name: String,
}

/// A package of the author's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The name of its library in Rust.
    pub(super) library: String,
    /// Whether a plugin is made of it. Others are in the workspace only.
    pub(super) is_used: bool,
}

impl Package {
    /// Whether it is the author's own: the SDK comes along with the host.
    pub(super) fn is_own(&self) -> bool {
        self.is_used && self.library != "plugin_api"
    }

    /// Whether a line of Cargo's says that it is compiled now, as in `Compiling shop v0.1.0 (/w/shop)`.
    pub(super) fn is_compiled(&self, line: &str) -> bool {
        let line = line.trim();
        let folder = line
            .strip_suffix(')')
            .and_then(|line| line.split_once(" ("));
        self.is_own()
            && line.starts_with("Compiling ")
            && folder.is_some_and(|(_, folder)| Path::new(folder) == self.folder)
    }
}

impl Project {
    /// Asks Cargo for the project at a path: a package, a workspace, or a folder in one.
    ///
    /// # Errors
    ///
    /// When there is none, when Cargo does not understand it, or when none of it is a plugin.
    pub(super) async fn read(path: &Path) -> Result<Self, ProjectError> {
        let manifest = find_manifest(path).ok_or_else(|| ProjectError::Missing(path.to_owned()))?;
        let output = Command::new("cargo")
            .args(["metadata", "--format-version=1", "--color=never", "--quiet"])
            .arg("--manifest-path")
            .arg(&manifest)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ProjectError::Cargo)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(ProjectError::Metadata(said.trim_end().to_owned()));
        }
        let metadata = serde_json::from_slice(&output.stdout).map_err(ProjectError::Answer)?;
        Self::of(manifest, metadata)
    }

    fn of(manifest: PathBuf, metadata: Metadata) -> Result<Self, ProjectError> {
        let named = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path == manifest);
        let chosen: Vec<&Described> = match named {
            Some(package) if package.is_plugin() => vec![package],
            // The package at the root of a workspace may be there for others.
            _ => {
                let members: BTreeSet<&str> = metadata
                    .workspace_members
                    .iter()
                    .map(String::as_str)
                    .collect();
                let is_chosen = |package: &&Described| {
                    members.contains(&*package.id)
                        && package.is_plugin()
                        && named.is_none_or(|_| manifest.parent() == Some(&metadata.workspace_root))
                };
                metadata.packages.iter().filter(is_chosen).collect()
            }
        };
        if chosen.is_empty() {
            return Err(match named {
                Some(package) => ProjectError::NoCdylib {
                    package: package.name.clone(),
                    manifest,
                },
                None => ProjectError::NoPlugins(manifest),
            });
        }
        let used = metadata.used_by(chosen.iter().map(|package| &*package.id));
        let packages = metadata
            .packages
            .iter()
            .filter(|package| package.source.is_none());
        let packages = packages.filter_map(|package| {
            Some(Package {
                folder: package.manifest_path.parent()?.to_owned(),
                library: package.library()?,
                is_used: used.contains(&*package.id),
            })
        });
        Ok(Self {
            packages: packages.collect(),
            plugins: chosen
                .iter()
                .map(|package| Plugin {
                    id: package.id.clone(),
                    name: package.name.clone(),
                })
                .collect(),
            root: metadata.workspace_root.clone(),
            target: metadata.target_directory.clone(),
            manifest,
        })
    }
}

/// The manifest of a path, or of the folder above it that has one.
fn find_manifest(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut manifests = path.ancestors().map(|folder| folder.join("Cargo.toml"));
    if path.file_name().is_some_and(|name| name == "Cargo.toml") {
        return Some(path);
    }
    manifests.find(|manifest| manifest.is_file())
}

/// The answer of `cargo metadata`, as far as it matters.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Described>,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
struct Described {
    id: String,
    name: String,
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Described {
    fn is_plugin(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.kind);
        kinds.any(|kind| kind == "cdylib")
    }

    /// The name of its first target in Rust. A package without a library has a program's.
    fn library(&self) -> Option<String> {
        Some(self.targets.first()?.name.replace('-', "_"))
    }
}

impl Metadata {
    /// The packages that these are made of, themselves included.
    fn used_by<'a>(&'a self, packages: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let nodes = self.resolve.iter().flat_map(|resolve| &resolve.nodes);
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

/// A project that cannot be developed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    /// Cargo's answer is none.
    #[error("cannot read the answer of `cargo metadata`")]
    Answer(#[source] serde_json::Error),
    /// There is no Cargo.
    #[error("cannot run cargo: install Rust, see https://rustup.rs")]
    Cargo(#[source] io::Error),
    /// Cargo does not understand the project.
    #[error("{0}")]
    Metadata(String),
    /// There is no manifest.
    #[error("there is no Cargo.toml in {} or above, expected a crate: `host new NAME` makes one", .0.display())]
    Missing(PathBuf),
    /// The package is no plugin.
    #[error(
        "{package} makes no library to load: add `[lib] crate-type = [\"cdylib\", \"rlib\"]` to {}",
        manifest.display()
    )]
    NoCdylib {
        /// The package.
        package: String,
        /// Its manifest.
        manifest: PathBuf,
    },
    /// No package of the workspace is a plugin.
    #[error(
        "no package of the workspace at {} makes a library to load, expected one with `[lib] crate-type = [\"cdylib\", \"rlib\"]`",
        .0.display()
    )]
    NoPlugins(PathBuf),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, kind: &str, source: Option<&str>) -> serde_json::Value {
        json!({
            "id": name, "name": name, "source": source,
            "manifest_path": format!("/w/{name}/Cargo.toml"),
            "targets": [{ "name": name, "kind": [kind] }],
        })
    }

    fn project(manifest: &str) -> Result<Project, ProjectError> {
        let metadata = json!({
            "packages": [
                package("shop", "cdylib", None),
                package("blog", "cdylib", None),
                package("shared", "lib", None),
                package("tool", "bin", None),
                package("axum", "lib", Some("registry")),
            ],
            "workspace_members": ["shop", "blog", "shared", "tool"],
            "workspace_root": "/w",
            "target_directory": "/w/target",
            "resolve": { "nodes": [
                { "id": "shop", "dependencies": ["shared", "axum"] },
                { "id": "blog", "dependencies": ["axum"] },
            ] },
        });
        Project::of(manifest.into(), serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn a_package_is_one_plugin_and_a_workspace_is_all_of_its() {
        let names = |manifest| -> Vec<String> {
            let plugins = project(manifest).unwrap().plugins;
            plugins.into_iter().map(|plugin| plugin.name).collect()
        };
        assert_eq!(names("/w/shop/Cargo.toml"), ["shop"]);
        assert_eq!(names("/w/Cargo.toml"), ["shop", "blog"]);
        let error = project("/w/tool/Cargo.toml").unwrap_err().to_string();
        assert!(
            error.starts_with("tool makes no library to load: add `[lib]"),
            "{error}"
        );
    }

    #[test]
    fn cargo_says_when_it_comes_to_a_package() {
        let packages = project("/w/shop/Cargo.toml").unwrap().packages;
        assert!(packages[0].is_compiled("   Compiling shop v0.1.0 (/w/shop)"));
        assert!(!packages[0].is_compiled("   Compiling shop v0.1.0"));
        assert!(!packages[1].is_compiled("   Compiling blog v0.1.0 (/w/blog)"));
    }

    #[test]
    fn sources_are_those_of_the_plugin_and_its_path_dependencies() {
        let packages = project("/w/shop/Cargo.toml").unwrap().packages;
        let used: Vec<_> = packages
            .iter()
            .map(|package| (&*package.library, package.is_used))
            .collect();
        assert_eq!(
            used,
            [
                ("shop", true),
                ("blog", false),
                ("shared", true),
                ("tool", false)
            ]
        );
    }
}
