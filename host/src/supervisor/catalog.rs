//! The catalog decides which apps exist, from the libraries in the folder and the operator's settings.
//!
//! [`plan`] is a pure function of all libraries, all settings, and the apps that exist now. So the result does
//! not depend on the order in which files were read. The rules, strongest first:
//!
//! 1. A serving app keeps its name and mounts until its library or its settings are removed.
//! 2. A mount that the settings assign to an app belongs to that app.
//! 3. An app that has a name or a mount keeps it.
//! 4. Of two libraries that claim the same, the first by path wins. A library whose load failed comes
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

/// A file in the plugins folder, as far as it was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Library {
    /// A library that can be loaded.
    Plugin(LibraryInfo),
    /// A file that exists but cannot be loaded.
    Unusable,
}

/// The facts about a library that planning needs.
#[derive(Clone, Debug, PartialEq)]
pub struct LibraryInfo {
    /// The plugin's name.
    pub plugin: String,
    /// Where the plugin asks to be mounted.
    pub mount: String,
    /// The library's content.
    pub hash: ContentHash,
    /// The C library inside that must not be loaded twice in one process, if there is one.
    pub carries: Option<&'static str>,
    /// How the plugin asks to be reloaded.
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
            carries: candidate.carries,
            reload: candidate.manifest.reload,
        }
    }
}

/// An existing app, as input for a plan.
#[derive(Clone, Debug, Default)]
pub struct CurrentApp {
    /// The library that the app is loaded from.
    pub library: PathBuf,
    /// The current mounts, and those that a probation keeps reserved.
    pub mounts: Vec<Arc<str>>,
    /// Whether a generation of the app serves.
    pub serves: bool,
    /// The contents whose load failed since the app last loaded.
    pub failed: BTreeSet<ContentHash>,
}

/// The apps that should exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The apps by name.
    pub apps: BTreeMap<String, PlannedApp>,
    /// Names and mounts that were denied, because another app owns them.
    pub conflicts: Vec<Conflict>,
}

/// An app of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedApp {
    /// The library.
    pub library: PathBuf,
    /// The spec of the app's next generation. `None` when the app stays as it is.
    pub spec: Option<Arc<Spec>>,
    /// The plugin in the library. `None` when the library cannot be read.
    pub plugin: Option<String>,
}

/// An app that a library claims but cannot become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The library.
    pub library: PathBuf,
    /// The library's plugin.
    pub plugin: String,
    /// The app.
    pub app: String,
    /// The name or mount that another app owns.
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

/// Makes a plan: first chooses one library for each app, then assigns the mounts.
#[must_use]
pub fn plan(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &AppSettings,
    held: &BTreeMap<String, CurrentApp>,
) -> Plan {
    let mut conflicts = Vec::new();
    let chosen = choose_libraries(libraries, settings, held, &mut conflicts);
    let apps = assign_mounts(chosen, settings, held, &mut conflicts);
    Plan { apps, conflicts }
}

/// Chooses one library for each app. The other libraries that claim the app become conflicts.
///
/// An app whose current library is unusable keeps that library, if the app serves or no other library
/// claims it: a broken copy in the folder must not stop a running app.
fn choose_libraries(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &AppSettings,
    held: &BTreeMap<String, CurrentApp>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, PlannedApp> {
    let mut candidates: BTreeMap<String, Vec<(&Path, &LibraryInfo)>> = BTreeMap::new();
    for (path, library) in libraries {
        if let Library::Plugin(facts) = library {
            for name in settings.names(&facts.plugin) {
                candidates.entry(name).or_default().push((path, facts));
            }
        }
    }
    let mut chosen = BTreeMap::new();
    for (name, current) in held {
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
        let current = held.get(&name);
        if !chosen.contains_key(&name) {
            let has_failed = |facts: &LibraryInfo| {
                current.is_some_and(|held| !held.serves && held.failed.contains(&facts.hash))
            };
            let is_held = |path: &Path| current.is_some_and(|held| held.library == path);
            // The sort is stable, so that paths stay in order.
            candidates.sort_by_key(|(path, facts)| (has_failed(facts), !is_held(path)));
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
