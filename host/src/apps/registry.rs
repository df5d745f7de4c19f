//! The registry maps paths to generations. The host looks up the path of every request in the registry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use tokio_util::sync::CancellationToken;

use super::generation::Generation;

/// The apps, and the routes to the apps. A request reads the routes with one atomic load. A change of an app builds new
/// routes and replaces the old routes.
#[derive(Debug, Default)]
pub struct Registry {
    /// The apps by name. The lock also orders the changes of `routes`.
    apps: Mutex<BTreeMap<&'static str, AppEntry>>,
    routes: ArcSwap<Routes>,
}

/// An app in the registry.
#[derive(Debug)]
struct AppEntry {
    mounts: Vec<Arc<str>>,
    /// The generation that serves. `None` while the app is not available.
    serving: Option<Arc<Generation>>,
    /// Cancelled when the awaited app has arrived, or when requests must not wait any more. `None` if the app is not
    /// awaited.
    arrival: Option<CancellationToken>,
}

impl AppEntry {
    fn new(mounts: Vec<Arc<str>>, serving: Option<Arc<Generation>>) -> Self {
        Self {
            mounts,
            serving,
            arrival: None,
        }
    }
}

impl Drop for AppEntry {
    /// Wakes the requests that wait for the app. Each of them looks up its path again.
    fn drop(&mut self) {
        if let Some(arrival) = &self.arrival {
            arrival.cancel();
        }
    }
}

/// A change of an app: the name, the mounts, and the generation that serves. Without a generation, requests are
/// answered with 503.
pub type RouteChange = (&'static str, Vec<Arc<str>>, Option<Arc<Generation>>);

impl Registry {
    /// Returns the current routes.
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Routes requests below `mounts` to `serving`. Without a generation, the requests are answered with 503.
    ///
    /// Returns the generation that served before. No request that begins after the call reaches the returned
    /// generation.
    pub fn publish(
        &self,
        name: &'static str,
        mounts: Vec<Arc<str>>,
        serving: Option<Arc<Generation>>,
    ) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        // The old entry is dropped after the new routes are stored, as in `publish_all`.
        let old_entry = apps.insert(name, AppEntry::new(mounts, serving));
        self.routes.store(Arc::new(Routes::of(&apps)));
        old_entry?.serving.take()
    }

    /// Publishes several apps at one moment, so that two apps can exchange their mounts.
    pub fn publish_all(&self, changes: Vec<RouteChange>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping an old entry wakes the requests that wait for the app, and these requests look up their paths again.
        // Therefore the old entries are dropped after the new routes are stored.
        let mut old_entries = Vec::new();
        for (name, mounts, serving) in changes {
            old_entries.extend(apps.insert(name, AppEntry::new(mounts, serving)));
        }
        self.routes.store(Arc::new(Routes::of(&apps)));
    }

    /// Lets requests below `mounts` wait until the app is published, because another worker is about to send the app's
    /// state.
    pub fn await_app(&self, name: &'static str, mounts: Vec<Arc<str>>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut awaited = AppEntry::new(mounts, None);
        awaited.arrival = Some(CancellationToken::new());
        let _old_entry = apps.insert(name, awaited);
        self.routes.store(Arc::new(Routes::of(&apps)));
    }

    /// Wakes the requests that wait for the app, because the app will not arrive. The requests are answered with 503.
    pub fn stop_awaiting(&self, name: &str) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(app) = apps.get_mut(name) else {
            return;
        };
        // The routes are replaced before the requests are woken, because the requests look up their paths again.
        let arrival = app.arrival.take();
        self.routes.store(Arc::new(Routes::of(&apps)));
        if let Some(arrival) = arrival {
            arrival.cancel();
        }
    }

    /// Returns the serving generations of all apps.
    pub fn serving_generations(&self) -> Vec<Arc<Generation>> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = apps.values().filter_map(|app| app.serving.clone());
        serving.collect()
    }

    /// Removes an app and its mounts. Returns the generation that served, if there was one.
    pub fn remove(&self, name: &str) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let old_entry = apps.remove(name);
        self.routes.store(Arc::new(Routes::of(&apps)));
        old_entry?.serving.take()
    }
}

/// A map from paths to apps.
#[derive(Debug, Default)]
pub struct Routes {
    /// The app with the mount `/`.
    root: Option<Route>,
    /// The routes of all other mounts.
    prefixes: HashMap<Arc<str>, Route>,
    /// The different lengths of the mounts in `prefixes`, the longest first.
    lengths: Vec<usize>,
}

/// An app at one of its mounts.
#[derive(Clone, Debug)]
pub struct Route {
    /// The mount: the prefix of the paths that the app serves.
    pub mount: Arc<str>,
    /// The app's name.
    pub name: &'static str,
    /// The generation that serves. `None` while the app is not available.
    pub serving: Option<Arc<Generation>>,
    /// Cancelled when requests that wait for the app must look up their paths again. `None` if requests need not wait.
    pub arrival: Option<CancellationToken>,
}

impl Routes {
    /// Builds the routes to all apps.
    fn of(apps: &BTreeMap<&'static str, AppEntry>) -> Self {
        let mut routes = Self::default();
        for (&name, app) in apps {
            for mount in &app.mounts {
                let route = Route {
                    mount: Arc::clone(mount),
                    name,
                    serving: app.serving.clone(),
                    arrival: app.arrival.clone(),
                };
                if **mount == *"/" {
                    routes.root = Some(route);
                } else {
                    routes.prefixes.insert(Arc::clone(mount), route);
                }
            }
        }
        // Longest first, so that the first match of a lookup is the longest mount.
        routes.lengths = routes.prefixes.keys().map(|mount| mount.len()).collect();
        routes.lengths.sort_unstable_by(|one, other| other.cmp(one));
        routes.lengths.dedup();
        routes
    }

    /// Returns all mounts as text, sorted and separated by spaces, for messages.
    #[must_use]
    pub fn mounts(&self) -> String {
        let root = self.root.iter().map(|root| &*root.mount);
        let mut mounts: Vec<_> = root
            .chain(self.prefixes.keys().map(|mount| &**mount))
            .collect();
        mounts.sort_unstable();
        mounts.join(" ")
    }

    /// Returns the app with the longest mount that is a prefix of `path` and ends at the end of a segment of `path`.
    /// Returns `None` if no mount matches. Mount and path are compared byte by byte: percent-encoding is not decoded,
    /// and dots and double slashes are ordinary segments.
    ///
    /// The mounts limit the cost, so a client cannot make a lookup expensive: one prefix of the path is hashed for each
    /// different length of the mounts.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Route> {
        let mut candidates = self.candidates(path);
        let found = candidates.find_map(|prefix| self.prefixes.get(prefix));
        found.or(self.root.as_ref())
    }

    /// Returns the prefixes of `path` that are as long as a mount and end at the end of a segment, the longest first.
    fn candidates<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.lengths.iter().filter_map(|&len| {
            // `None` for a path that is too short, or for a length within a character.
            let prefix = path.get(..len)?;
            let is_segment_end = matches!(path.as_bytes().get(len), None | Some(b'/'));
            is_segment_end.then_some(prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Random;

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
            ("/shop/%61dmin", "/shop"),
            ("/%73hop", "/"),
            ("//shop", "/"),
            ("/shop/./admin", "/shop"),
            ("/SHOP", "/"),
            ("/shöp", "/"),
            ("/sho\u{308}", "/"),
            ("*", "/"),
            ("", "/"),
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

    #[test]
    fn a_long_path_is_looked_up_no_more_often_than_mounts_have_lengths() {
        let registry = registry(&["/", "/a", "/b", "/shop", "/shop/admin"]);
        let routes = registry.routes();
        for path in ["/".repeat(16 << 10), "/a".repeat(8 << 10)] {
            assert!(routes.candidates(&path).count() <= 3);
            let longest = routes.candidates(&path).map(str::len).max();
            assert!(longest <= Some("/shop/admin".len()));
        }
    }

    #[test]
    fn any_path_finds_what_a_walk_over_all_mounts_finds() {
        let mounts = ["/a", "/a/b", "/a/b/a", "/b", "/ab", "//a", "/a/", "/b/a/b"];
        let registry = registry(&mounts);
        let routes = registry.routes();
        let covers = |mount: &&&str, path: &str| {
            let rest = path.strip_prefix(**mount);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // All paths of up to seven of these letters.
        let mut paths = vec![String::new()];
        for _ in 0..7 {
            let longer = |path: &String| ["/", "a", "b"].map(|letter| format!("{path}{letter}"));
            paths = paths.iter().flat_map(longer).collect();
            for path in &paths {
                let covering = mounts.iter().filter(|mount| covers(mount, path));
                let expected = covering.max_by_key(|mount| mount.len());
                let found = routes.find(path).map(|route| &*route.mount);
                assert_eq!(found, expected.copied(), "{path}");
            }
        }
    }

    #[test]
    fn random_paths_find_what_a_walk_over_all_mounts_finds() {
        let mut random = Random::new(3);
        let mounts = [
            "/",
            "/a",
            "/a/b",
            "/shöp",
            "/shöp/ä",
            "/%2e",
            "/a=b",
            "/very/long/mount/of/an/app",
        ];
        let registry = registry(&mounts);
        let routes = registry.routes();
        let mut found_below_root = 0;
        for _ in 0..20_000 {
            let path = random.text(&mounts);
            let covers = |mount: &&&str| {
                let rest = path.strip_prefix(**mount);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let covering = mounts[1..].iter().filter(covers);
            let expected = covering.max_by_key(|mount| mount.len()).unwrap_or(&"/");
            let found = &*routes.find(&path).unwrap().mount;
            assert_eq!(found, *expected, "{path:?}");
            found_below_root += usize::from(found != "/");
        }
        assert!(found_below_root > 1_000, "{found_below_root}");
    }
}
