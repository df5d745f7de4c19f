//! What the operator says of apps: which apps a plugin is, where they are and whether that is free, and
//! what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::Path,
    sync::Arc,
};

use tracing::warn;

use super::{App, Reloader};
use crate::{
    config::{self, Mount},
    log::bridge,
    plugin::{
        generation::Spec,
        load::{Candidate, LoadError},
    },
};

impl Reloader {
    /// What an app is made of when it is loaded from this candidate.
    pub(super) fn spec(&self, name: &str, candidate: &Candidate) -> Arc<Spec> {
        let table = self.options.apps.iter().find(|app| app.name == name);
        Arc::new(Spec {
            hash: candidate.hash(),
            mounts: self.mounts(name, &candidate.manifest.name, &candidate.manifest.mount),
            config: table.and_then(|app| app.config.as_deref().map(Arc::from)),
        })
    }

    /// The operator says something else now: the apps that it is about are loaded anew.
    pub(super) fn configure(&mut self, mounts: Vec<Mount>, apps: Vec<config::App>) {
        let plugins = self.apps.values().map(|app| app.plugin);
        let before: BTreeMap<_, _> = plugins.map(|plugin| (plugin, self.said(plugin))).collect();
        self.options.mounts = mounts;
        self.options.apps = apps;
        let changed = self
            .apps
            .values()
            .filter(|app| before[app.plugin] != self.said(app.plugin));
        let libraries: BTreeSet<_> = changed.map(|app| app.library.clone()).collect();
        for library in libraries {
            self.present_in_line(library);
        }
        self.look_again();
        self.stranger_check = true;
    }

    /// All that the operator says of a plugin.
    fn said(&self, plugin: &'static str) -> (Vec<config::App>, Vec<Mount>) {
        let names = self.names(plugin);
        let apps = self.options.apps.iter().filter(|app| app.plugin == plugin);
        let mounts = self.options.mounts.iter();
        let mounts = mounts.filter(|mount| names.contains(&&*mount.plugin));
        (apps.cloned().collect(), mounts.cloned().collect())
    }

    /// Warns of what is said of apps that are not there: most often their names are misspelt.
    pub(super) fn check_for_strangers(&mut self) {
        if !mem::take(&mut self.stranger_check) {
            return;
        }
        let is_there = |plugin: &str| {
            let refused = self.refused.values();
            self.apps.values().any(|app| app.plugin == plugin)
                || refused
                    .filter_map(|refused| refused.plugin.as_deref())
                    .any(|other| other == plugin)
        };
        let apps = &self.options.apps;
        for app in apps.iter().filter(|app| !is_there(&app.plugin)) {
            warn!(
                app = app.name,
                plugin = app.plugin,
                "An app is described whose plugin is not in the folder, or not yet"
            );
        }
        for Mount { path, plugin } in &self.options.mounts {
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

    /// The apps that a plugin is: those that the operator describes, else one of its own name.
    pub(super) fn names(&self, plugin: &'static str) -> Vec<&'static str> {
        let described = self.options.apps.iter().filter(|app| app.plugin == plugin);
        let names: Vec<_> = described.map(|app| bridge::intern(&app.name)).collect();
        if names.is_empty() {
            vec![plugin]
        } else {
            names
        }
    }

    /// Where an app is mounted: where the operator says, by an option before a table, else where
    /// the plugin asks for, if it is the app's namesake.
    fn mounts(&self, name: &str, plugin: &str, asked: &str) -> Vec<Arc<str>> {
        let said = self
            .options
            .mounts
            .iter()
            .filter(|said| said.plugin == name);
        let said: Vec<_> = said.map(|said| Arc::from(&*said.path)).collect();
        let table = self.options.apps.iter().find(|app| app.name == name);
        let table = table.map_or(&[][..], |app| &app.mounts);
        if !said.is_empty() {
            said
        } else if !table.is_empty() {
            table.iter().map(|path| Arc::from(&**path)).collect()
        } else if name == plugin {
            vec![Arc::from(asked)]
        } else {
            vec![Arc::from(format!("/{name}"))]
        }
    }

    /// Whether nobody else has the name or one of the mounts.
    pub(super) fn free(
        &self,
        name: &'static str,
        mounts: &[Arc<str>],
        path: &Path,
    ) -> Result<(), LoadError> {
        // A library that was renamed is there under the new name first.
        let others = |app: &&App| app.library != path && app.library.exists();
        if let Some(app) = self.apps.get(name).filter(others) {
            return Err(LoadError::Name {
                plugin: name,
                by: app.library.clone(),
            });
        }
        for mount in mounts {
            let others = self.apps.iter().filter(|&(&other, _)| other != name);
            let mut having = others.filter(|(_, app)| app.has(mount));
            let having = having.next();
            let having = having.map(|(by, app)| format!("{by} ({})", app.library.display()));
            let promised = || self.promised(mount).filter(|&by| by != name);
            if let Some(by) = having.or_else(|| promised().map(str::to_owned)) {
                return Err(LoadError::Mount {
                    plugin: name,
                    mount: Arc::clone(mount),
                    by: by.into(),
                });
            }
        }
        Ok(())
    }

    /// The app that the operator says is to have `mount`.
    fn promised(&self, mount: &str) -> Option<&'static str> {
        let said = self.options.mounts.iter().find(|said| said.path == mount);
        let by_table = || {
            let has = |app: &&config::App| app.mounts.iter().any(|path| path == mount);
            Some(&self.options.apps.iter().find(has)?.name)
        };
        let name = said.map(|said| &said.plugin).or_else(by_table)?;
        Some(bridge::intern(name))
    }
}
