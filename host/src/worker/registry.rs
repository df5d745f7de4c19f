//! The registry maps paths to generations. Every request looks its path up here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use tokio_util::sync::CancellationToken;

use super::generation::Generation;

/// The apps and the routes to them. A lookup is one atomic load; a change of an app builds new routes.
#[derive(Debug, Default)]
pub struct Registry {
    apps: Mutex<BTreeMap<&'static str, AppEntry>>,
    routes: ArcSwap<Routes>,
}

#[derive(Debug)]
struct AppEntry {
    mounts: Vec<Arc<str>>,
    serving: Option<Arc<Generation>>,
    /// Cancelled when the app has arrived or is not awaited any more. Requests wait for the cancellation.
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
    fn drop(&mut self) {
        if let Some(arrival) = &self.arrival {
            arrival.cancel();
        }
    }
}

/// A change: the app's name, its mounts, and the generation that serves there.
pub type RouteChange = (&'static str, Vec<Arc<str>>, Option<Arc<Generation>>);

impl Registry {
    /// Returns the current routes.
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Routes requests below `mounts` to `serving`, or answers them with 503 without a generation.
    ///
    /// After the call no new request reaches the generation that served before, which is returned.
    pub fn publish(
        &self,
        name: &'static str,
        mounts: Vec<Arc<str>>,
        serving: Option<Arc<Generation>>,
    ) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = apps.insert(name, AppEntry::new(mounts, serving));
        self.routes.store(Arc::new(Routes::of(&apps)));
        before?.serving.take()
    }

    /// Publishes several apps at one moment, so that two apps can exchange their mounts.
    pub fn publish_all(&self, changes: Vec<RouteChange>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping an old entry wakes the requests that wait for its app, and they look the path up again.
        // So the old entries are kept until the new routes are stored.
        let mut before = Vec::new();
        for (name, mounts, serving) in changes {
            before.extend(apps.insert(name, AppEntry::new(mounts, serving)));
        }
        self.routes.store(Arc::new(Routes::of(&apps)));
    }

    /// Lets requests below `mounts` wait, because the app is about to arrive.
    pub fn await_app(&self, name: &'static str, mounts: Vec<Arc<str>>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut expected = AppEntry::new(mounts, None);
        expected.arrival = Some(CancellationToken::new());
        let _before = apps.insert(name, expected);
        self.routes.store(Arc::new(Routes::of(&apps)));
    }

    /// Wakes the requests that wait for the app, because it does not arrive. They are answered with 503.
    pub fn stop_awaiting(&self, name: &str) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(app) = apps.get_mut(name) else {
            return;
        };
        let arrival = app.arrival.take();
        self.routes.store(Arc::new(Routes::of(&apps)));
        if let Some(arrival) = arrival {
            arrival.cancel();
        }
    }

    /// Returns all generations that serve.
    pub fn serving(&self) -> Vec<Arc<Generation>> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = apps.values().filter_map(|app| app.serving.clone());
        serving.collect()
    }

    /// Removes an app and its mounts. Returns the generation that served.
    pub fn remove(&self, name: &str) -> Option<Arc<Generation>> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = apps.remove(name);
        self.routes.store(Arc::new(Routes::of(&apps)));
        before?.serving.take()
    }
}

/// A map from paths to apps.
#[derive(Debug, Default)]
pub struct Routes {
    /// The app at `/`.
    root: Option<Route>,
    /// The other apps, by mount.
    prefixes: HashMap<Arc<str>, Route>,
    /// The lengths of those mounts, each once, the longest first.
    lengths: Vec<usize>,
}

/// An app at one of its mounts.
#[derive(Clone, Debug)]
pub struct Route {
    /// The prefix of the app's paths.
    pub mount: Arc<str>,
    /// The app's name.
    pub name: &'static str,
    /// The generation that serves. `None` while the app is not available.
    pub serving: Option<Arc<Generation>>,
    /// Cancelled when the app has arrived. `None` if requests need not wait.
    pub arrival: Option<CancellationToken>,
}

impl Routes {
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
        routes.lengths = routes.prefixes.keys().map(|mount| mount.len()).collect();
        routes.lengths.sort_unstable_by(|one, other| other.cmp(one));
        routes.lengths.dedup();
        routes
    }

    /// Returns all mounts, in their order as text, for people.
    #[must_use]
    pub fn mounts(&self) -> String {
        let root = self.root.iter().map(|root| &*root.mount);
        let mut mounts: Vec<_> = root
            .chain(self.prefixes.keys().map(|mount| &**mount))
            .collect();
        mounts.sort_unstable();
        mounts.join(" ")
    }

    /// Returns the app with the longest mount that is a prefix of `path` and ends at a segment's end. Mount and path
    /// are compared byte by byte: percent-encoding is not decoded, and dots and double slashes are ordinary
    /// segments.
    ///
    /// The cost is bounded by the mounts, whatever the client sends: a path is hashed up to the
    /// length of a mount, and at most once for each length that some mount has.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Route> {
        let mut candidates = self.candidates(path);
        let found = candidates.find_map(|prefix| self.prefixes.get(prefix));
        found.or(self.root.as_ref())
    }

    /// Returns the prefixes of `path` that have the length of some mount and end at a segment's end, the longest
    /// first.
    fn candidates<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.lengths.iter().filter_map(|&len| {
            let prefix = path.get(..len)?;
            let ends = matches!(path.as_bytes().get(len), None | Some(b'/'));
            ends.then_some(prefix)
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
