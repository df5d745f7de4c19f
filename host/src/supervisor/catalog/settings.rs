//! The operator's settings of apps: the mounts, the configuration, and the way in which each app is reloaded.

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
    /// The values of the option `--mount`.
    pub mounts: Vec<Mount>,
    /// The tables `[app.NAME]`.
    pub apps: Vec<config::AppConfig>,
}

impl AppSettings {
    /// Returns the names of the apps that a plugin provides: the name of each table `[app.NAME]` that names the plugin,
    /// or the plugin's own name if no table names the plugin.
    #[must_use]
    pub fn app_names(&self, plugin: &str) -> Vec<String> {
        let tables = self.apps.iter().filter(|app| app.plugin == plugin);
        let names: Vec<_> = tables.map(|app| app.name.clone()).collect();
        if names.is_empty() {
            vec![plugin.to_owned()]
        } else {
            names
        }
    }

    /// Returns the spec that the app `name` has if the app is loaded from the library that `facts` describes.
    #[must_use]
    pub fn spec(&self, name: &str, facts: &LibraryInfo) -> Arc<Spec> {
        let table = self.apps.iter().find(|app| app.name == name);
        Arc::new(Spec {
            hash: facts.hash,
            mounts: self.mounts(name, facts),
            config: table.and_then(|app| app.config.as_deref().map(Arc::from)),
        })
    }

    /// Returns the mounts of the app `name`. The first source that contains a mount counts: the option `--mount`, the
    /// app's table, the mount that the plugin requests if app and plugin have the same name, and last `/NAME`.
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

    /// Returns the reason why a new version of the app `name` must start in a fresh process. Returns `None` if the
    /// version can be swapped within the running process.
    #[must_use]
    pub fn by_process(&self, name: &str, facts: &LibraryInfo) -> Option<String> {
        let table = self.apps.iter().find(|app| app.name == name);
        let configured = table.and_then(|app| app.reload);
        // The operator's setting takes precedence over the request of the plugin.
        match configured.unwrap_or(facts.reload) {
            ReloadBy::Auto => facts.embedded_library.map(|library| {
                format!("it carries {library}, which must not be loaded twice in one process")
            }),
            ReloadBy::Process if configured.is_some() => {
                Some("the configuration says so".to_owned())
            }
            ReloadBy::Process => Some("the plugin asks for it".to_owned()),
            ReloadBy::Swap => None,
        }
    }

    /// Returns the app to which the settings assign `mount`. The option `--mount` takes precedence over the tables.
    pub(super) fn configured_owner(&self, mount: &str) -> Option<&str> {
        let option = self.mounts.iter().find(|option| option.path == mount);
        let table = || {
            let has_mount = |app: &&config::AppConfig| app.mounts.iter().any(|path| path == mount);
            Some(&*self.apps.iter().find(has_mount)?.name)
        };
        option.map(|option| &*option.plugin).or_else(table)
    }
}
