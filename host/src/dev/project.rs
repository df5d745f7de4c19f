//! The project of a development session, read from Cargo: the plugins, and the packages that they depend on.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::metadata::{Metadata, MetadataPackage};

/// A workspace, with the plugins that the session builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    /// The manifest of the package or workspace that the author named.
    pub(super) manifest: PathBuf,
    /// The folder of the workspace.
    pub(super) root: PathBuf,
    /// Cargo's target folder. The session builds into a folder below.
    pub(super) target: PathBuf,
    /// The plugins that the session builds.
    pub(super) plugins: Vec<PluginPackage>,
    /// All packages whose sources are on this machine.
    pub(super) packages: Vec<SourcePackage>,
}

/// A package that is a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PluginPackage {
    /// Cargo's id of the package.
    pub(super) id: String,
    pub(super) name: String,
}

/// A package whose sources are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourcePackage {
    /// The folder of the package's manifest.
    pub(super) folder: PathBuf,
    /// The Rust name of the package's library.
    pub(super) library_name: String,
    /// Whether the package is one of the session's plugins or one of their dependencies. False for a package that is
    /// only in the same workspace.
    pub(super) is_used: bool,
}

impl SourcePackage {
    /// Returns whether the package is the author's own code. The SDK is not, although its sources are on this machine
    /// too: the SDK comes with the host.
    pub(super) fn is_own(&self) -> bool {
        self.is_used && self.library_name != "plugin_api"
    }

    /// Returns whether `line` is Cargo's message that the build of this package begins, such as
    /// `Compiling shop v0.1.0 (/w/shop)`. Returns false for packages that are not the author's own.
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
    /// Reads the project at a path with `cargo metadata`. The path is a package, a workspace, or a folder in one of
    /// these.
    ///
    /// # Errors
    ///
    /// Fails when no folder at or above the path has a manifest, when Cargo rejects the manifest, or when
    /// no package of the project is a plugin.
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
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(ProjectError::Metadata(errors.trim_end().to_owned()));
        }
        let metadata = serde_json::from_slice(&output.stdout).map_err(ProjectError::Answer)?;
        Self::from_metadata(manifest, metadata)
    }

    /// Chooses the plugins: the package of `manifest`, or all plugins of the workspace if `manifest` is the manifest of
    /// the workspace.
    fn from_metadata(manifest: PathBuf, metadata: Metadata) -> Result<Self, ProjectError> {
        let named_package = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path == manifest);
        let plugins: Vec<&MetadataPackage> = match named_package {
            Some(package) if package.is_plugin() => vec![package],
            // A workspace may have a package at its root that is no plugin. The author then means the plugins of all
            // members.
            _ => {
                let members: BTreeSet<&str> = metadata
                    .workspace_members
                    .iter()
                    .map(String::as_str)
                    .collect();
                // If the author named a package below the root that is no plugin, no member matches: the result is an
                // error, and not the plugins of other packages.
                let is_member_plugin = |package: &&MetadataPackage| {
                    members.contains(&*package.id)
                        && package.is_plugin()
                        && named_package
                            .is_none_or(|_| manifest.parent() == Some(&metadata.workspace_root))
                };
                metadata.packages.iter().filter(is_member_plugin).collect()
            }
        };
        if plugins.is_empty() {
            return Err(match named_package {
                Some(package) => ProjectError::NoCdylib {
                    package: package.name.clone(),
                    manifest,
                },
                None => ProjectError::NoPlugins(manifest),
            });
        }
        // Keep all packages with sources on this machine, not only the members of the workspace: a path dependency may
        // be in another workspace.
        let used = metadata.with_dependencies(plugins.iter().map(|package| &*package.id));
        let packages = metadata
            .packages
            .iter()
            .filter(|package| package.source.is_none());
        let packages = packages.filter_map(|package| {
            Some(SourcePackage {
                folder: package.manifest_path.parent()?.to_owned(),
                library_name: package.library_name()?,
                is_used: used.contains(&*package.id),
            })
        });
        Ok(Self {
            packages: packages.collect(),
            plugins: plugins
                .iter()
                .map(|package| PluginPackage {
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

/// Returns the path of a manifest: `path` itself if its name is `Cargo.toml`, else the manifest in `path` or in the
/// nearest folder above. Returns `None` if no folder has a manifest or if the path does not exist.
fn find_manifest(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut manifests = path.ancestors().map(|folder| folder.join("Cargo.toml"));
    if path.file_name().is_some_and(|name| name == "Cargo.toml") {
        return Some(path);
    }
    manifests.find(|manifest| manifest.is_file())
}

/// The reason why a session cannot work on a project.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    /// The output of `cargo metadata` is not the expected JSON.
    #[error("cannot read the answer of `cargo metadata`")]
    Answer(#[source] serde_json::Error),
    /// Cargo is not installed, or cannot be run.
    #[error("cannot run cargo: install Rust, see https://rustup.rs")]
    Cargo(#[source] io::Error),
    /// Cargo rejects the manifest. The text is Cargo's error.
    #[error("{0}")]
    Metadata(String),
    /// Neither this folder nor a folder above has a manifest.
    #[error("there is no Cargo.toml in {} or above, expected a crate: `host new NAME` makes one", .0.display())]
    Missing(PathBuf),
    /// The build of the package makes no library that a host can load.
    #[error(
        "{package} makes no library to load: add `[lib] crate-type = [\"cdylib\", \"rlib\"]` to {}",
        manifest.display()
    )]
    NoCdylib {
        /// The name of the package.
        package: String,
        /// The manifest of the package.
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
        Project::from_metadata(manifest.into(), serde_json::from_value(metadata).unwrap())
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
            .map(|package| (&*package.library_name, package.is_used))
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
