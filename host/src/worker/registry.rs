//! Which app serves which path: what every request looks up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use super::generation::Generation;

/// The apps, and the routes to them. Reading is one atomic load; whoever changes an app makes new
/// routes.
#[derive(Debug, Default)]
pub struct Registry {
    apps: Mutex<BTreeMap<&'static str, Published>>,
    routes: ArcSwap<Routes>,
}

#[derive(Debug)]
struct Published {
    mounts: Vec<Arc<str>>,
    serving: Option<Arc<Generation>>,
}

/// An app, its mounts, and what is to serve there.
pub type Change = (&'static str, Vec<Arc<str>>, Option<Arc<Generation>>);

impl Registry {
    /// The routes as they are now.
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Sends requests below `mounts` to `serving`; without one, they are told that the app is not
    /// available.
    ///
    /// When this returns, no request that starts is sent to what served before, which is the
    /// result.
    pub fn publish(
        &self,
        name: &'static str,
        mounts: Vec<Arc<str>>,
        serving: Option<Arc<Generation>>,
    ) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = apps.insert(name, Published { mounts, serving });
        self.routes.store(Arc::new(Routes::of(&apps)));
        before?.serving
    }

    /// Publishes several apps at one moment, as [`publish`](Self::publish) does one: two apps may so
    /// exchange their mounts.
    pub fn publish_all(&self, changes: Vec<Change>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, mounts, serving) in changes {
            apps.insert(name, Published { mounts, serving });
        }
        self.routes.store(Arc::new(Routes::of(&apps)));
    }

    /// The generations that serve.
    pub fn serving(&self) -> Vec<Arc<Generation>> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = apps.values().filter_map(|app| app.serving.clone());
        serving.collect()
    }

    /// Forgets an app: nothing is mounted where it was. The result is what served.
    pub fn remove(&self, name: &str) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = apps.remove(name);
        self.routes.store(Arc::new(Routes::of(&apps)));
        before?.serving
    }
}

/// From paths to apps.
#[derive(Debug, Default)]
pub struct Routes {
    /// What is mounted at `/`.
    root: Option<Route>,
    /// What is mounted elsewhere, by its mount.
    prefixes: HashMap<Arc<str>, Route>,
}

/// An app at one of its mounts.
#[derive(Clone, Debug)]
pub struct Route {
    /// The prefix of the paths that it serves.
    pub mount: Arc<str>,
    /// The app's name.
    pub name: &'static str,
    /// What serves; none while the app is not available.
    pub serving: Option<Arc<Generation>>,
}

impl Routes {
    fn of(apps: &BTreeMap<&'static str, Published>) -> Self {
        let mut routes = Self::default();
        for (&name, app) in apps {
            for mount in &app.mounts {
                let route = Route {
                    mount: Arc::clone(mount),
                    name,
                    serving: app.serving.clone(),
                };
                if **mount == *"/" {
                    routes.root = Some(route);
                } else {
                    routes.prefixes.insert(Arc::clone(mount), route);
                }
            }
        }
        routes
    }

    /// The app with the longest mount that is a prefix of `path` and ends where a segment of it
    /// ends.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Route> {
        if !self.prefixes.is_empty() {
            let mut prefix = path;
            while !prefix.is_empty() {
                if let Some(route) = self.prefixes.get(prefix) {
                    return Some(route);
                }
                prefix = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
            }
        }
        self.root.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(mounts: &[&'static str]) -> Registry {
        let registry = Registry::default();
        for mount in mounts {
            registry.publish(mount, vec![Arc::from(*mount)], None);
        }
        registry
    }

    #[test]
    fn the_longest_mount_on_a_segments_boundary_wins() {
        let registry = registry(&["/", "/shop", "/shop/admin"]);
        for (path, mount) in [
            ("/", "/"),
            ("/shop", "/shop"),
            ("/shop/", "/shop"),
            ("/shop/cart", "/shop"),
            ("/shopping", "/"),
            ("/shop/administer", "/shop"),
            ("/shop/admin/users/7", "/shop/admin"),
            ("/shop//admin", "/shop"),
            ("*", "/"),
        ] {
            assert_eq!(
                &*registry.routes().find(path).unwrap().mount,
                mount,
                "{path}"
            );
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is_mounted() {
        let registry = registry(&["/shop"]);
        assert!(registry.routes().find("/").is_none());
        assert!(registry.routes().find("/shopping").is_none());
        registry.remove("/shop");
        assert!(registry.routes().find("/shop").is_none());
    }
}
