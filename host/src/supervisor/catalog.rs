//! Which apps there are: from the libraries in the folder and what the operator says to one plan.
//!
//! [`plan`] is a pure function of all libraries and all settings, so the result does not depend on
//! the order in which files were read. Its rules, in this order:
//!
//! 1. What serves keeps its name and its mounts until its library or the configuration goes.
//! 2. A mount that the operator promises to an app is that app's.
//! 3. An app that has a name or a mount keeps it.
//! 4. Of two libraries that want the same, the first by path wins. A library whose load failed comes
//!    after all others while its app serves nothing.

mod mounts;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::manifest::ReloadBy;

use self::mounts::assign_mounts;
pub use self::settings::Settings;
use crate::{
    folder::{candidate::Candidate, store::Hash},
    orders::Spec,
};

/// What is known of a file in the folder.
#[derive(Clone, Debug, PartialEq)]
pub enum Library {
    /// A library that may be loaded.
    Plugin(Facts),
    /// A file that is there and cannot be loaded.
    Unusable,
}

/// What a library says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The plugin's name.
    pub plugin: String,
    /// Where the plugin asks to be mounted.
    pub mount: String,
    /// The library's content.
    pub hash: Hash,
    /// The C library in it that must not be loaded twice in one process, if there is one.
    pub carries: Option<&'static str>,
    /// How the plugin asks to be reloaded.
    pub reload: ReloadBy,
}

impl Facts {
    /// What a library that was read says.
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

/// What an app has before a plan is made.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// The library that the app is loaded from.
    pub library: PathBuf,
    /// Where it is mounted now.
    pub mounts: Vec<Arc<str>>,
    /// Whether a generation of it serves.
    pub serves: bool,
    /// The contents whose load failed.
    pub failed: BTreeSet<Hash>,
}

/// Which apps there are to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The apps by name.
    pub apps: BTreeMap<String, Planned>,
    /// What cannot be had, because another app has it.
    pub conflicts: Vec<Conflict>,
}

/// An app of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The library.
    pub library: PathBuf,
    /// What its next generation is made of; none when the app stays as it is.
    pub spec: Option<Arc<Spec>>,
    /// The plugin in the library; none when the library cannot be read.
    pub plugin: Option<String>,
}

/// An app that a library cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The library.
    pub library: PathBuf,
    /// The library's plugin.
    pub plugin: String,
    /// The app.
    pub app: String,
    /// What another has.
    pub taken: Taken,
}

/// What another app or library has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// The library `by` is the app already.
    #[error("its plugin {app} is served from {}; remove one of the two", by.display())]
    Name {
        /// The app.
        app: String,
        /// The other library.
        by: PathBuf,
    },
    /// The app `by` is mounted there.
    #[error("its mount {mount} is taken by {by}; give one of them another by --mount /PATH={app}")]
    Mount {
        /// The app.
        app: String,
        /// Where it would be mounted.
        mount: Arc<str>,
        /// The app that is mounted there, and its library.
        by: String,
    },
}

/// Decides which apps there are.
#[must_use]
pub fn plan(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
) -> Plan {
    let mut conflicts = Vec::new();
    let chosen = choose_libraries(libraries, settings, held, &mut conflicts);
    let apps = assign_mounts(chosen, settings, held, &mut conflicts);
    Plan { apps, conflicts }
}

/// One library for each app.
fn choose_libraries(
    libraries: &BTreeMap<PathBuf, Library>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, Planned> {
    let mut candidates: BTreeMap<String, Vec<(&Path, &Facts)>> = BTreeMap::new();
    for (path, library) in libraries {
        if let Library::Plugin(facts) = library {
            for name in settings.names(&facts.plugin) {
                candidates.entry(name).or_default().push((path, facts));
            }
        }
    }
    let mut chosen = BTreeMap::new();
    for (name, holding) in held {
        let is_unusable = libraries.get(&holding.library) == Some(&Library::Unusable);
        if is_unusable && (holding.serves || !candidates.contains_key(name)) {
            let planned = Planned {
                library: holding.library.clone(),
                spec: None,
                plugin: None,
            };
            chosen.insert(name.clone(), planned);
        }
    }
    for (name, mut candidates) in candidates {
        let holding = held.get(&name);
        if !chosen.contains_key(&name) {
            let has_failed = |facts: &Facts| {
                holding.is_some_and(|held| !held.serves && held.failed.contains(&facts.hash))
            };
            let is_held = |path: &Path| holding.is_some_and(|held| held.library == path);
            // The sort is stable, so that paths stay in order.
            candidates.sort_by_key(|(path, facts)| (has_failed(facts), !is_held(path)));
            let (path, facts) = candidates.remove(0);
            let planned = Planned {
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
                taken: Taken::Name {
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
