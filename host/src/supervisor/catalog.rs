//! The catalog decides which apps exist, from the libraries in the folder and the operator's settings.
//!
//! [`plan`] is a pure function of all libraries, all settings, and the current apps. So the result does not depend on
//! the order in which files were read. The rules, the strongest first:
//!
//! 1. A serving app keeps its name and mounts until its library or its settings are removed.
//! 2. A mount that the settings assign to an app belongs to that app.
//! 3. A current app keeps its name and its mounts.
//! 4. Of two libraries that claim the same name or mount, the first by path wins. A library whose load failed comes
//!    last while its app does not serve.

mod mounts;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::manifest::ReloadBy;

use self::mounts::assign_mounts;
pub use self::settings::AppSettings;
use crate::{
    folder::{candidate::Candidate, store::ContentHash},
    orders::Spec,
};

/// The result of reading a file in the plugins folder.
#[derive(Clone, Debug, PartialEq)]
pub enum Library {
    /// A library that can be loaded.
    Plugin(LibraryInfo),
    /// A file that exists but cannot be loaded.
    Unusable,
}

/// The facts about a library that a plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct LibraryInfo {
    /// The plugin's name.
    pub plugin: String,
    /// The mount that the plugin requests.
    pub mount: String,
    /// The library's content.
    pub hash: ContentHash,
    /// The name of a C library that is linked into this library and must not be loaded twice in one process. `None` if
    /// the library contains no such C library.
    pub embedded_library: Option<&'static str>,
    /// How the plugin wants to be reloaded.
    pub reload: ReloadBy,
}

impl LibraryInfo {
    /// Returns the facts about a library that was read.
    #[must_use]
    pub fn of(candidate: &Candidate) -> Self {
        Self {
            plugin: candidate.manifest.name.clone(),
            mount: candidate.manifest.mount.clone(),
            hash: candidate.hash(),
            embedded_library: candidate.embedded_library,
            reload: candidate.manifest.reload,
        }
    }
}

/// A current app, as input for a plan.
#[derive(Clone, Debug, Default)]
pub struct CurrentApp {
    /// The library that the app is loaded from.
    pub library: PathBuf,
    /// The current mounts, and the mounts that a probation keeps reserved.
    pub mounts: Vec<Arc<str>>,
    /// Whether a generation of the app serves.
    pub serves: bool,
    /// The contents whose load failed since the last successful load of the app.
    pub failed: BTreeSet<ContentHash>,
}

/// The apps that should exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The apps by name.
    pub apps: BTreeMap<String, PlannedApp>,
    /// The names and mounts that a library claims but does not get, because another app or library has them.
    pub conflicts: Vec<Conflict>,
}

/// An app of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedApp {
    /// The library.
    pub library: PathBuf,
    /// The spec of the app's next generation. `None` if the app does not change.
    pub spec: Option<Arc<Spec>>,
    /// The plugin in the library. `None` if the library cannot be read.
    pub plugin: Option<String>,
}

/// A failed claim of a library: another library provides the app already, or another app has one of the app's mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The library.
    pub library: PathBuf,
    /// The library's plugin.
    pub plugin: String,
    /// The app.
    pub app: String,
    /// The name or mount that belongs to another app or library.
    pub taken: TakenError,
}

/// A name or a mount that already has an owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakenError {
    /// The app is already provided by the library `by`.
    #[error("its plugin {app} is served from {}; remove one of the two", by.display())]
    Name {
        /// The app.
        app: String,
        /// The other library.
        by: PathBuf,
    },
    /// The mount belongs to the app `by`.
    #[error("its mount {mount} is taken by {by}; give one of them another by --mount /PATH={app}")]
    Mount {
        /// The app.
        app: String,
        /// The mount.
        mount: Arc<str>,
        /// The owner of the mount, with its library.
        by: String,
    },
}

/// Returns the plan. Chooses one library for each app first, and then assigns the mounts.
#[must_use]
pub fn plan(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &AppSettings,
    current_apps: &BTreeMap<String, CurrentApp>,
) -> Plan {
    let mut conflicts = Vec::new();
    let chosen = choose_libraries(libraries, settings, current_apps, &mut conflicts);
    let apps = assign_mounts(chosen, settings, current_apps, &mut conflicts);
    Plan { apps, conflicts }
}

/// Chooses one library for each app. For each other library that claims the same app, adds a conflict.
///
/// An app whose current library is unusable keeps that library if the app serves, because a broken file in the folder
/// must not stop a running app. An app that does not serve keeps the library only if no other library claims the app.
fn choose_libraries(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &AppSettings,
    current_apps: &BTreeMap<String, CurrentApp>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, PlannedApp> {
    let mut candidates: BTreeMap<String, Vec<(&Path, &LibraryInfo)>> = BTreeMap::new();
    for (path, library) in libraries {
        if let Library::Plugin(facts) = library {
            for name in settings.app_names(&facts.plugin) {
                candidates.entry(name).or_default().push((path, facts));
            }
        }
    }
    let mut chosen = BTreeMap::new();
    for (name, current) in current_apps {
        let is_unusable = libraries.get(&current.library) == Some(&Library::Unusable);
        if is_unusable && (current.serves || !candidates.contains_key(name)) {
            let planned = PlannedApp {
                library: current.library.clone(),
                spec: None,
                plugin: None,
            };
            chosen.insert(name.clone(), planned);
        }
    }
    for (name, mut candidates) in candidates {
        let current = current_apps.get(&name);
        if !chosen.contains_key(&name) {
            // A failed load counts only while the app does not serve. A serving app keeps its library.
            let has_failed = |facts: &LibraryInfo| {
                current
                    .is_some_and(|current| !current.serves && current.failed.contains(&facts.hash))
            };
            let is_current = |path: &Path| current.is_some_and(|current| current.library == path);
            // The candidates are in the order of their paths. The sort is stable, so equal candidates keep that order.
            candidates.sort_by_key(|(path, facts)| (has_failed(facts), !is_current(path)));
            let (path, facts) = candidates.remove(0);
            let planned = PlannedApp {
                library: path.to_owned(),
                spec: Some(settings.spec(&name, facts)),
                plugin: Some(facts.plugin.clone()),
            };
            chosen.insert(name.clone(), planned);
        }
        for (path, facts) in candidates {
            conflicts.push(Conflict {
                library: path.to_owned(),
                plugin: facts.plugin.clone(),
                app: name.clone(),
                taken: TakenError::Name {
                    app: name.clone(),
                    by: chosen[&name].library.clone(),
                },
            });
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
