//! From a plan to apps: what is new, changed or gone since the last one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{error, info, warn};

use super::{
    Supervisor,
    app::{App, AskId, Source, Wanted, Why},
    catalog::{self, Conflict, Library, Plan, Planned},
    error::AskError,
    outcome::Failure,
};
use crate::{
    config::{self, Mount},
    folder::candidate::Candidate,
    orders::Order,
    worker::load::LoadError,
};

/// A library that is no app.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failure: Failure,
}

/// A load that an operator asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) app: String,
    pub(super) ask: AskId,
    pub(super) candidate: Arc<Candidate>,
}

/// Libraries that were read since the last plan, with their bytes as far as those were kept.
type Fresh = BTreeMap<PathBuf, Option<Arc<Candidate>>>;

impl Supervisor {
    /// Makes a plan of all that is known, and does what it says.
    pub(super) fn plan(&mut self) {
        self.plan_for(Vec::new());
    }

    /// Makes a plan, and loads what was asked for even if it did not change.
    pub(super) fn plan_for(&mut self, mut asked: Vec<Asked>) {
        let fresh = self.libraries.settle();
        let held = self.apps.iter();
        let held = held.map(|(name, app)| (name.clone(), app.holding()));
        let plan = catalog::plan(self.libraries.known(), &self.settings, &held.collect());
        self.remove_apps(&plan);
        for (name, planned) in &plan.apps {
            let is_this = |asked: &mut Asked| {
                let library = &asked.candidate.path;
                asked.app == *name && *library == planned.library && planned.spec.is_some()
            };
            let asked = asked.extract_if(.., is_this).next();
            self.follow(name, planned, &fresh, asked);
        }
        for asked in asked {
            self.refuse_asked(asked, &plan);
        }
        self.note_refused(&plan);
    }

    /// Who asked is told why their app is not what its library is.
    fn refuse_asked(&mut self, asked: Asked, plan: &Plan) {
        let conflict = plan
            .conflicts
            .iter()
            .find(|conflict| conflict.app == asked.app && conflict.library == asked.candidate.path);
        let error = match conflict {
            Some(conflict) => AskError::Failed(conflict.taken.to_string()),
            // Another plugin took the library's place.
            None => AskError::Superseded,
        };
        self.answer(asked.ask, Err(error));
    }

    /// Takes away the apps that are not in the plan.
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

    /// Has an app be what the plan says.
    fn follow(&mut self, name: &str, planned: &Planned, fresh: &Fresh, asked: Option<Asked>) {
        let Some(spec) = &planned.spec else { return };
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
            // From here on requests are told that the app is on its way, not that there is nothing.
            app.mounts.clone_from(&spec.mounts);
            self.fleet.send_all(&Order::Hold {
                app: name.to_owned(),
                mounts: spec.mounts.clone(),
            });
        }
        let candidate = fresh.get(&planned.library);
        if asked.is_none() && candidate.is_none() && app.tried.as_ref() == Some(spec) {
            return;
        }
        let source = match (&asked, candidate) {
            (Some(asked), _) => Source::Candidate(Arc::clone(&asked.candidate)),
            (None, Some(Some(candidate))) => Source::Candidate(Arc::clone(candidate)),
            _ => match app.serving.as_ref() {
                // What the folder has by now is not asked for: the same library is to start with
                // other settings.
                Some(serving) if serving.spec.hash == spec.hash => {
                    Source::File(serving.copy.clone())
                }
                _ => Source::File(planned.library.clone()),
            },
        };
        app.tried = Some(Arc::clone(spec));
        let actions = app.want(Wanted {
            spec: Arc::clone(spec),
            source,
            why: if asked.is_some() {
                Why::Reload
            } else {
                Why::Changed
            },
            ask: asked.map(|asked| asked.ask),
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

    /// Says which libraries are no app, once for each reason.
    fn note_refused(&mut self, plan: &Plan) {
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
            let failure = Failure::new(library, hash, &error);
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

    /// Warns of what is said of apps that are not there: most often their names are misspelt.
    pub(super) fn check_for_strangers(&mut self) {
        if !std::mem::take(&mut self.checks_strangers) {
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
