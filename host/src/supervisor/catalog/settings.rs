//! The operator's settings of apps: mounts, configuration, and how each app is reloaded.

use std::sync::Arc;

use plugin_api::manifest::ReloadBy;

use super::LibraryInfo;
use crate::{
    config::{self, Mount},
    orders::Spec,
};

/// The operator's settings of apps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppSettings {
    /// The options `--mount`.
    pub mounts: Vec<Mount>,
    /// The tables `[app.NAME]`.
    pub apps: Vec<config::AppConfig>,
}

impl AppSettings {
    /// Returns the names of the apps that a plugin provides: one for each `[app.NAME]` table that names the
    /// plugin, or the plugin's own name when there is none.
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

    /// Returns the spec of the app `name` when it is loaded from the library `facts`.
    #[must_use]
    pub fn spec(&self, name: &str, facts: &LibraryInfo) -> Arc<Spec> {
        let table = self.apps.iter().find(|app| app.name == name);
        Arc::new(Spec {
            hash: facts.hash,
            mounts: self.mounts(name, facts),
            config: table.and_then(|app| app.config.as_deref().map(Arc::from)),
        })
    }

    /// Returns the mounts of the app `name`. The first of these that exists counts: `--mount`, the app's
    /// table, the plugin's own mount if app and plugin have the same name, `/NAME`.
    fn mounts(&self, name: &str, facts: &LibraryInfo) -> Vec<Arc<str>> {
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

    /// Returns why a new version of the app `name` must start in a fresh process, or `None` for a swap.
    #[must_use]
    pub fn by_process(&self, name: &str, facts: &LibraryInfo) -> Option<String> {
        let table = self.apps.iter().find(|app| app.name == name);
        let configured = table.and_then(|app| app.reload);
        match configured.unwrap_or(facts.reload) {
            ReloadBy::Auto => facts.carries.map(|carries| {
                format!("it carries {carries}, which must not be loaded twice in one process")
            }),
            ReloadBy::Process if configured.is_some() => {
                Some("the configuration says so".to_owned())
            }
            ReloadBy::Process => Some("the plugin asks for it".to_owned()),
            ReloadBy::Swap => None,
        }
    }

    /// Returns the app to which the settings assign `mount`.
    pub(super) fn promised(&self, mount: &str) -> Option<&str> {
        let option = self.mounts.iter().find(|option| option.path == mount);
        let table = || {
            let has = |app: &&config::AppConfig| app.mounts.iter().any(|path| path == mount);
            Some(&*self.apps.iter().find(has)?.name)
        };
        option.map(|option| &*option.plugin).or_else(table)
    }
}
