//! Carries a plan out: adds, changes and removes apps.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{error, info, warn};

use super::{
    Supervisor,
    app::{App, LibrarySource, LoadReason, LoadRequest, ReplyId},
    catalog::{self, Conflict, Library, Plan, PlannedApp},
    error::CommandError,
    outcome::LoadFailure,
};
use crate::{
    config::{self, Mount},
    folder::candidate::Candidate,
    orders::Order,
    worker::load::LoadError,
};

/// A library that could not become an app.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failure: LoadFailure,
}

/// A load that an operator asked for, with the library already read.
#[derive(Debug)]
pub(super) struct ReloadRequest {
    pub(super) app: String,
    pub(super) reply_id: ReplyId,
    pub(super) candidate: Arc<Candidate>,
}

/// Libraries that were read since the last plan. The bytes of some are still in memory.
type Fresh = BTreeMap<PathBuf, Option<Arc<Candidate>>>;

impl Supervisor {
    /// Makes a plan from all libraries and settings, and carries it out.
    pub(super) fn plan(&mut self) {
        self.plan_for(Vec::new());
    }

    /// Makes a plan and carries it out. Apps in `reload` are loaded even if nothing changed.
    pub(super) fn plan_for(&mut self, mut reload: Vec<ReloadRequest>) {
        let fresh = self.libraries.take_fresh();
        let held = self.apps.iter();
        let held = held.map(|(name, app)| (name.clone(), app.current()));
        let plan = catalog::plan(self.libraries.known(), &self.settings, &held.collect());
        self.remove_apps(&plan);
        for (name, planned) in &plan.apps {
            let is_this = |reload: &mut ReloadRequest| {
                let library = &reload.candidate.path;
                reload.app == *name && *library == planned.library && planned.spec.is_some()
            };
            let reload = reload.extract_if(.., is_this).next();
            self.follow(name, planned, &fresh, reload);
        }
        for reload in reload {
            self.reject_reload(reload, &plan);
        }
        self.log_rejected(&plan);
    }

    /// Answers an operator whose reload is not part of the plan.
    fn reject_reload(&mut self, reload: ReloadRequest, plan: &Plan) {
        let conflict = plan.conflicts.iter().find(|conflict| {
            conflict.app == reload.app && conflict.library == reload.candidate.path
        });
        let error = match conflict {
            Some(conflict) => CommandError::Failed(conflict.taken.to_string()),
            // Another plugin has replaced the library.
            None => CommandError::Superseded,
        };
        self.answer(reload.reply_id, Err(error));
    }

    /// Removes the apps that are not in the plan.
    fn remove_apps(&mut self, plan: &Plan) {
        let names: Vec<_> = self.apps.keys().cloned().collect();
        for name in names {
            if plan.apps.contains_key(&name) {
                continue;
            }
            let Some(mut app) = self.apps.remove(&name) else {
                continue;
            };
            let file = app.library.display();
            match self.libraries.known().get(&app.library) {
                Some(Library::Plugin(facts)) if facts.plugin != app.plugin => {
                    info!(plugin = name, %file, by = facts.plugin, "Removed, its library holds another plugin now");
                }
                Some(Library::Plugin(facts))
                    if !self.settings.names(&facts.plugin).contains(&name) =>
                {
                    info!(plugin = name, %file, "Removed, the configuration describes other apps");
                }
                _ => info!(plugin = name, %file, "Removed"),
            }
            let actions = app.remove();
            self.removed.insert(name.clone(), app);
            self.apply(&name, actions);
        }
    }

    /// Warns, once for each pair, when another app carries the same C library that must not be loaded
    /// twice in one process. Every worker has both apps.
    fn warn_of_two_copies(&mut self, name: &str, library: &Path) {
        let carried = |library: &Path| match self.libraries.known().get(library) {
            Some(Library::Plugin(facts)) => facts.carries,
            _ => None,
        };
        let Some(carries) = carried(library) else {
            return;
        };
        let others = self.apps.values();
        let others =
            others.filter(|app| app.name != name && carried(&app.library) == Some(carries));
        for other in others {
            let mut pair = [name.to_owned(), other.name.clone()];
            pair.sort();
            if self.warned_pairs.insert(pair) {
                warn!(
                    plugin = name,
                    other = other.name,
                    "Both apps carry {carries}, and two copies in one process do not see each other's file locks: \
                    they must not open the same database file"
                );
            }
        }
    }

    /// Brings one app into the state that the plan asks for: creates it if needed, and requests a load if
    /// its library or its settings changed.
    ///
    /// Nothing is requested when the plan asks for the same spec as before and the library was not read
    /// again: a failed load is repeated only for a new content, new settings, or on request.
    fn follow(
        &mut self,
        name: &str,
        planned: &PlannedApp,
        fresh: &Fresh,
        reload: Option<ReloadRequest>,
    ) {
        let Some(spec) = &planned.spec else { return };
        self.warn_of_two_copies(name, &planned.library);
        let plugin = planned.plugin.clone().unwrap_or_else(|| name.to_owned());
        if !self.apps.contains_key(name) {
            self.add_app(name, &plugin, &planned.library);
        }
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        app.plugin = plugin;
        if let Some(Library::Plugin(facts)) = self.libraries.known().get(&planned.library) {
            app.by_process = self.settings.by_process(name, facts);
        }
        if app.library != planned.library {
            info!(
                plugin = name,
                file = %app.library.display(),
                by = %planned.library.display(),
                "Another library takes over"
            );
            app.library.clone_from(&planned.library);
        }
        if app.serving.is_none() && app.mounts != spec.mounts {
            // From here on requests to the app are answered with 503 (loading) instead of 404.
            app.mounts.clone_from(&spec.mounts);
            self.fleet.send_all(&Order::Hold {
                app: name.to_owned(),
                mounts: spec.mounts.clone(),
            });
        }
        let candidate = fresh.get(&planned.library);
        if reload.is_none() && candidate.is_none() && app.tried.as_ref() == Some(spec) {
            return;
        }
        let source = match (&reload, candidate) {
            (Some(reload), _) => LibrarySource::Candidate(Arc::clone(&reload.candidate)),
            (None, Some(Some(candidate))) => LibrarySource::Candidate(Arc::clone(candidate)),
            _ => match app.serving.as_ref() {
                // Only the settings changed: start the private copy again. The file in the folder may
                // have changed already, which is a change of its own.
                Some(serving) if serving.spec.hash == spec.hash => {
                    LibrarySource::File(serving.copy.clone())
                }
                _ => LibrarySource::File(planned.library.clone()),
            },
        };
        app.tried = Some(Arc::clone(spec));
        let actions = app.request_load(LoadRequest {
            spec: Arc::clone(spec),
            source,
            reason: if reload.is_some() {
                LoadReason::Reload
            } else {
                LoadReason::Changed
            },
            reply_id: reload.map(|reload| reload.reply_id),
        });
        self.apply(name, actions);
    }

    fn add_app(&mut self, name: &str, plugin: &str, library: &Path) {
        let before = self.removed.remove(name);
        let app = App::new(
            name.to_owned(),
            plugin.to_owned(),
            library.to_owned(),
            before.map_or_else(
                || self.loads_before.remove(name).unwrap_or_default(),
                |before| before.loads,
            ),
            self.watches,
        );
        self.apps.insert(name.to_owned(), app);
    }

    /// Records the libraries that could not become an app, and logs each reason once.
    fn log_rejected(&mut self, plan: &Plan) {
        let mut refused = BTreeMap::new();
        for conflict in &plan.conflicts {
            let Conflict {
                library,
                plugin,
                app,
                taken,
            } = conflict;
            let hash = match self.libraries.known().get(library) {
                Some(Library::Plugin(facts)) => Some(facts.hash),
                _ => None,
            };
            let error = LoadError::Taken(Box::new(taken.clone()));
            let failure = LoadFailure::new(library, hash, &error);
            let key = (library.clone(), app.clone());
            refused.insert(key, (Some(plugin.clone()), failure));
        }
        for (path, (plugin, failure)) in self.libraries.failures() {
            if !self.apps.values().any(|app| app.library == *path) {
                let key = (path.clone(), String::new());
                refused.insert(key, (plugin.clone(), failure.clone()));
            }
        }
        let before = std::mem::take(&mut self.refused);
        for (key, (plugin, failure)) in refused {
            let is_known = before.get(&key).is_some_and(|before| {
                before.failure.error == failure.error && before.failure.hash == failure.hash
            });
            if !is_known {
                error!(
                    plugin,
                    file = failure.file,
                    hash = failure.hash,
                    step = failure.step,
                    error = failure.error,
                    "Not loaded"
                );
            }
            let refused = match before.get(&key).filter(|_| is_known) {
                Some(before) => Refused {
                    failure: before.failure.clone(),
                },
                None => Refused { failure },
            };
            self.refused.insert(key, refused);
        }
    }

    /// Warns, once after each change of the settings, of settings for apps that no library provides. The
    /// usual cause is a misspelt name.
    pub(super) fn warn_of_unknown_apps(&mut self) {
        if !std::mem::take(&mut self.checks_unknown_apps) {
            return;
        }
        let libraries = self.libraries.known().values();
        let plugins: Vec<_> = libraries
            .filter_map(|library| match library {
                Library::Plugin(facts) => Some(&*facts.plugin),
                Library::Unusable => None,
            })
            .chain(
                self.libraries
                    .failures()
                    .values()
                    .filter_map(|(plugin, _)| plugin.as_deref()),
            )
            .collect();
        let is_there = |plugin: &str| plugins.contains(&plugin);
        let apps = &self.settings.apps;
        for config::AppConfig { name, plugin, .. } in
            apps.iter().filter(|app| !is_there(&app.plugin))
        {
            warn!(
                app = name,
                plugin, "An app is described whose plugin is not in the folder, or not yet"
            );
        }
        for Mount { path, plugin } in &self.settings.mounts {
            let is_described = apps.iter().any(|app| app.name == *plugin);
            let is_other = apps.iter().any(|app| app.plugin == *plugin);
            if !is_described && (is_other || !is_there(plugin)) {
                warn!(
                    path,
                    app = plugin,
                    "--mount is for an app that is not there, or not yet"
                );
            }
        }
    }
}
