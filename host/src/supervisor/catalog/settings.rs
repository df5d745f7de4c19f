//! What the operator says of apps: where they are mounted, and how they are configured and reloaded.

use std::sync::Arc;

use plugin_api::manifest::ReloadBy;

use super::Facts;
use crate::{
    config::{self, Mount},
    orders::Spec,
};

/// What the operator says of apps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The options `--mount`.
    pub mounts: Vec<Mount>,
    /// The tables `[app.NAME]`.
    pub apps: Vec<config::AppConfig>,
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

    /// The app that the operator promises `mount` to.
    pub(super) fn promised(&self, mount: &str) -> Option<&str> {
        let option = self.mounts.iter().find(|option| option.path == mount);
        let table = || {
            let has = |app: &&config::AppConfig| app.mounts.iter().any(|path| path == mount);
            Some(&*self.apps.iter().find(has)?.name)
        };
        option.map(|option| &*option.plugin).or_else(table)
    }
}
