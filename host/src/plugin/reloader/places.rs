//! Names and mounts: which apps a plugin is, where they are, and whether that is free.

use std::{path::Path, sync::Arc};

use super::{App, Reloader};
use crate::{config, log::bridge, plugin::load::LoadError};

impl Reloader {
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
    pub(super) fn mounts(&self, name: &str, plugin: &str, asked: &str) -> Vec<Arc<str>> {
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
            let mut having = others.filter(|(_, app)| app.has(mount)).map(|(&by, _)| by);
            let promised = || self.promised(mount).filter(|&by| by != name);
            if let Some(by) = having.next().or_else(promised) {
                return Err(LoadError::Mount {
                    plugin: name.to_owned(),
                    mount: Arc::clone(mount),
                    by,
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
