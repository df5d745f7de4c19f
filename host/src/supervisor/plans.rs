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
};

/// A library that could not become an app, with the reason.
#[derive(Debug)]
pub(super) struct RefusedLibrary {
    pub(super) failure: LoadFailure,
}

/// A load that an operator requested. The library was already read.
#[derive(Debug)]
pub(super) struct ReloadRequest {
    pub(super) app: String,
    pub(super) reply_id: ReplyId,
    pub(super) candidate: Arc<Candidate>,
}

/// The libraries that were read since the last plan. `None` if the bytes of a library are not in memory any more.
type ReadLibraries = BTreeMap<PathBuf, Option<Arc<Candidate>>>;

impl Supervisor {
    /// Makes a plan from all libraries and settings, and carries it out.
    pub(super) fn plan(&mut self) {
        self.plan_for(Vec::new());
    }

    /// Makes a plan and carries it out. The apps in `reloads` are loaded even if nothing changed.
    pub(super) fn plan_for(&mut self, mut reloads: Vec<ReloadRequest>) {
        let read = self.libraries.begin_plan();
        let current = self.apps.iter();
        let current = current.map(|(name, app)| (name.clone(), app.current()));
        let plan = catalog::plan(self.libraries.known(), &self.settings, &current.collect());
        // Removed apps must free their mounts before other apps get these mounts.
        self.remove_apps(&plan);
        for (name, planned) in &plan.apps {
            let is_for_app = |reload: &mut ReloadRequest| {
                let library = &reload.candidate.path;
                reload.app == *name && *library == planned.library && planned.spec.is_some()
            };
            let reload = reloads.extract_if(.., is_for_app).next();
            self.update_app(name, planned, &read, reload);
        }
        for reload in reloads {
            self.reject_reload(reload, &plan);
        }
        self.log_rejected(&plan);
    }

    /// Answers an operator whose app does not get the requested library in the plan.
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
                    if !self.settings.app_names(&facts.plugin).contains(&name) =>
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

    /// Warns if another app contains the same C library, and that library must not be loaded twice in one process.
    /// Every worker loads both apps. The warning appears once for each pair of apps.
    fn warn_of_two_copies(&mut self, name: &str, library: &Path) {
        let carried_by = |library: &Path| match self.libraries.known().get(library) {
            Some(Library::Plugin(facts)) => facts.embedded_library,
            _ => None,
        };
        let Some(carries) = carried_by(library) else {
            return;
        };
        let others = self.apps.values();
        let others =
            others.filter(|app| app.name != name && carried_by(&app.library) == Some(carries));
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

    /// Brings one app into the state that the plan contains: creates the app if it does not exist, and requests a load
    /// if its library or its settings changed.
    ///
    /// Requests no load if the plan contains the same spec as the last request and the library was not read again. So a
    /// failed load is repeated only after a change of the library or the settings, or if an operator requests it.
    fn update_app(
        &mut self,
        name: &str,
        planned: &PlannedApp,
        read: &ReadLibraries,
        reload: Option<ReloadRequest>,
    ) {
        // Without a spec the app does not change.
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
            // From now on the workers answer requests to the app with 503 instead of 404.
            app.mounts.clone_from(&spec.mounts);
            self.fleet.send_all(&Order::Hold {
                app: name.to_owned(),
                mounts: spec.mounts.clone(),
            });
        }
        let candidate = read.get(&planned.library);
        if reload.is_none() && candidate.is_none() && app.requested_spec.as_ref() == Some(spec) {
            return;
        }
        let source = match (&reload, candidate) {
            (Some(reload), _) => LibrarySource::Candidate(Arc::clone(&reload.candidate)),
            (None, Some(Some(candidate))) => LibrarySource::Candidate(Arc::clone(candidate)),
            _ => match app.serving.as_ref() {
                // Only the settings changed, so the private copy is read, and not the file in the folder. That file may
                // have changed already; the watcher reports that as another change.
                Some(serving) if serving.spec.hash == spec.hash => {
                    LibrarySource::File(serving.copy.clone())
                }
                _ => LibrarySource::File(planned.library.clone()),
            },
        };
        // Stored before the load, so that a failed load is not repeated by each plan.
        app.requested_spec = Some(Arc::clone(spec));
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

    /// Creates an app. Its generation numbers continue from an earlier app of the same name.
    fn add_app(&mut self, name: &str, plugin: &str, library: &Path) {
        let loads = self.loads_before_upgrade.remove(name);
        let removed = self.removed.remove(name);
        let loads = removed.as_ref().map(|app| app.loads).or(loads);
        let mut app = App::new(
            name.to_owned(),
            plugin.to_owned(),
            library.to_owned(),
            loads.unwrap_or_default(),
            self.uses_probation,
        );
        // Generations of the removed app may still drain, and operators may wait for that.
        if let Some(removed) = removed {
            app.draining = removed.draining;
        }
        self.apps.insert(name.to_owned(), app);
    }

    /// Records the libraries that could not become an app. Logs each reason once.
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
            let failure = LoadFailure::mount_taken(library, hash, taken);
            let key = (library.clone(), app.clone());
            refused.insert(key, (Some(plugin.clone()), failure));
        }
        for (path, (plugin, failure)) in self.libraries.failures() {
            // The failure of a library that has an app was logged for the app, and is in the report of the app.
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
            // A known failure keeps the time at which it happened first.
            let refused = match before.get(&key).filter(|_| is_known) {
                Some(before) => RefusedLibrary {
                    failure: before.failure.clone(),
                },
                None => RefusedLibrary { failure },
            };
            self.refused.insert(key, refused);
        }
    }

    /// Warns of settings for apps that no library provides. The warnings appear once after each change of the settings.
    /// The usual cause is a misspelt name.
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
        let is_provided = |plugin: &str| plugins.contains(&plugin);
        let apps = &self.settings.apps;
        for config::AppConfig { name, plugin, .. } in
            apps.iter().filter(|app| !is_provided(&app.plugin))
        {
            warn!(
                app = name,
                plugin, "An app is described whose plugin is not in the folder, or not yet"
            );
        }
        for Mount { path, plugin } in &self.settings.mounts {
            let has_table = apps.iter().any(|app| app.name == *plugin);
            let has_named_apps = apps.iter().any(|app| app.plugin == *plugin);
            if !has_table && (has_named_apps || !is_provided(plugin)) {
                warn!(
                    path,
                    app = plugin,
                    "--mount is for an app that is not there, or not yet"
                );
            }
        }
    }
}
