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

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{self, Mount, ReloadBy},
    folder::{candidate::Candidate, store::Hash},
    orders::Spec,
};

/// What the operator says of apps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The options `--mount`.
    pub mounts: Vec<Mount>,
    /// The tables `[app.NAME]`.
    pub apps: Vec<config::App>,
}

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

impl Settings {
    /// The names of the apps that a plugin is: those that the operator describes, else its own.
    #[must_use]
    pub fn names(&self, plugin: &str) -> Vec<String> {
        let described = self.apps.iter().filter(|app| app.plugin == plugin);
        let names: Vec<_> = described.map(|app| app.name.clone()).collect();
        if names.is_empty() {
            vec![plugin.to_owned()]
        } else {
            names
        }
    }

    /// What the app `name` is made of when it is loaded from the library `facts`.
    #[must_use]
    pub fn spec(&self, name: &str, facts: &Facts) -> Arc<Spec> {
        let table = self.apps.iter().find(|app| app.name == name);
        Arc::new(Spec {
            hash: facts.hash,
            mounts: self.mounts(name, facts),
            config: table.and_then(|app| app.config.as_deref().map(Arc::from)),
        })
    }

    /// Where the app `name` is mounted: by `--mount`, else by its table, else where its plugin asks
    /// for if they have the same name, else below its name.
    fn mounts(&self, name: &str, facts: &Facts) -> Vec<Arc<str>> {
        let options = self.mounts.iter().filter(|mount| mount.plugin == name);
        let options: Vec<_> = options.map(|mount| Arc::from(&*mount.path)).collect();
        let table = self.apps.iter().find(|app| app.name == name);
        let table = table.map_or(&[][..], |app| &app.mounts);
        if !options.is_empty() {
            options
        } else if !table.is_empty() {
            table.iter().map(|path| Arc::from(&**path)).collect()
        } else if name == facts.plugin {
            vec![Arc::from(&*facts.mount)]
        } else {
            vec![Arc::from(format!("/{name}"))]
        }
    }

    /// Why a new version of the app `name` takes over in a fresh process, if it does.
    #[must_use]
    pub fn by_process(&self, name: &str, facts: &Facts) -> Option<String> {
        let table = self.apps.iter().find(|app| app.name == name);
        match table.map(|app| app.reload).unwrap_or_default() {
            ReloadBy::Auto => facts.carries.map(|carries| {
                format!("it carries {carries}, which must not be loaded twice in one process")
            }),
            ReloadBy::Process => Some("the configuration says so".to_owned()),
            ReloadBy::Swap => None,
        }
    }

    /// The app that the operator promises `mount` to.
    fn promised(&self, mount: &str) -> Option<&str> {
        let option = self.mounts.iter().find(|option| option.path == mount);
        let table = || {
            let has = |app: &&config::App| app.mounts.iter().any(|path| path == mount);
            Some(&*self.apps.iter().find(has)?.name)
        };
        option.map(|option| &*option.plugin).or_else(table)
    }
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

/// Gives each app its mounts. An app that cannot have all of its mounts stays as it is when it
/// serves, and is left out otherwise.
fn assign_mounts(
    mut apps: BTreeMap<String, Planned>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, Planned> {
    let mut left_out: BTreeMap<String, Planned> = BTreeMap::new();
    while let Some((name, lost)) = weakest_loser(&apps, settings, held) {
        let planned = apps.get_mut(&name).map(|planned| planned.spec.take());
        let Some(spec) = planned.flatten() else { break };
        conflicts.push(conflict(&apps, &name, lost));
        if !held.get(&name).is_some_and(|holding| holding.serves)
            && let Some(planned) = apps.remove(&name)
        {
            let spec = Some(spec);
            left_out.insert(name, Planned { spec, ..planned });
        }
    }
    // An app may have lost to one that was then left out itself.
    for (name, planned) in left_out {
        apps.insert(name.clone(), planned);
        if weakest_loser(&apps, settings, held).is_some() {
            apps.remove(&name);
        } else {
            conflicts.retain(|conflict| {
                conflict.app != name || !matches!(conflict.taken, Taken::Mount { .. })
            });
        }
    }
    apps
}

/// A mount that an app cannot have, and the app that has it.
type Lost = (Arc<str>, String);

/// The app with the weakest claim among those that cannot have one of their mounts.
fn weakest_loser(
    apps: &BTreeMap<String, Planned>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
) -> Option<(String, Lost)> {
    let mut claims: BTreeMap<Arc<str>, Vec<(Strength<'_>, &String)>> = BTreeMap::new();
    for (name, planned) in apps {
        let held = held.get(name).map_or(&[][..], |held| &held.mounts);
        let wanted = planned.spec.as_ref().map_or(held, |spec| &spec.mounts);
        for mount in wanted {
            let strength = Strength {
                stays: planned.spec.is_none(),
                is_promised: settings.promised(mount) == Some(name),
                is_held: held.contains(mount),
                path: Reverse(&planned.library),
            };
            claims
                .entry(Arc::clone(mount))
                .or_default()
                .push((strength, name));
        }
    }
    let mut losers = Vec::new();
    for (mount, mut claims) in claims {
        // The sort is stable: of two apps of one library the first by name wins.
        claims.sort_by(|(one, _), (other, _)| other.cmp(one));
        let (_, winner) = claims[0];
        for &(strength, name) in &claims[1..] {
            losers.push((strength, name, (Arc::clone(&mount), winner.clone())));
        }
    }
    let weakest = losers.into_iter().min_by_key(|(strength, ..)| *strength);
    weakest.map(|(_, name, lost)| (name.clone(), lost))
}

/// How strong a claim on a mount is. The first field counts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Strength<'a> {
    /// The app stays as it is.
    stays: bool,
    /// The operator promised the mount to the app.
    is_promised: bool,
    /// The app is mounted there now.
    is_held: bool,
    /// The first library by path wins.
    path: Reverse<&'a Path>,
}

fn conflict(apps: &BTreeMap<String, Planned>, name: &str, (mount, by): Lost) -> Conflict {
    let library = |name: &str| apps.get(name).map(|planned| planned.library.clone());
    let other = library(&by).unwrap_or_default();
    Conflict {
        library: library(name).unwrap_or_default(),
        plugin: apps
            .get(name)
            .and_then(|planned| planned.plugin.clone())
            .unwrap_or_else(|| name.to_owned()),
        app: name.to_owned(),
        taken: Taken::Mount {
            app: name.to_owned(),
            mount,
            by: format!("{by} ({})", other.display()),
        },
    }
}

#[cfg(test)]
mod tests;
