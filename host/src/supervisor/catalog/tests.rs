use super::*;
use crate::fuzz::Random;

fn hash(content: &str) -> ContentHash {
    ContentHash::of(content.as_bytes())
}

/// Libraries, written as `path: plugin mount content`.
fn libraries(lines: &[&str]) -> BTreeMap<PathBuf, Library> {
    let library = |line: &&str| {
        let (path, rest) = line.split_once(": ").unwrap();
        let mut words = rest.split(' ');
        let library = match words.next().unwrap() {
            "bad" => Library::Unusable,
            plugin => Library::Plugin(LibraryInfo {
                plugin: plugin.to_owned(),
                mount: words.next().unwrap().to_owned(),
                hash: hash(words.next().unwrap_or("v1")),
                embedded_library: None,
                reload: ReloadBy::Auto,
            }),
        };
        (PathBuf::from(path), library)
    };
    lines.iter().map(library).collect()
}

/// Current apps, written as `name: path mount…`. An app with `-` in front of its name does not serve.
fn held(lines: &[&str]) -> BTreeMap<String, CurrentApp> {
    let current = |line: &&str| {
        let (name, rest) = line.split_once(": ").unwrap();
        let mut words = rest.split(' ');
        let current = CurrentApp {
            library: words.next().unwrap().into(),
            mounts: words.map(Arc::from).collect(),
            serves: !name.starts_with('-'),
            failed: BTreeSet::new(),
        };
        (name.trim_start_matches('-').to_owned(), current)
    };
    lines.iter().map(current).collect()
}

/// Mounts of the operator, written as `/path=app`.
fn settings(mounts: &[&str]) -> AppSettings {
    let mounts = mounts.iter().map(|mount| mount.parse().unwrap()).collect();
    AppSettings {
        mounts,
        apps: Vec::new(),
    }
}

/// The plan, written as `name: path mount…`, and its conflicts, written as `path!app`. An app that does not change is
/// written without mounts.
fn shown(plan: &Plan) -> (Vec<String>, Vec<String>) {
    let app = |(name, planned): (&String, &PlannedApp)| {
        let mounts = planned
            .spec
            .iter()
            .flat_map(|spec| &spec.mounts)
            .map(|mount| format!(" {mount}"))
            .collect::<String>();
        format!("{name}: {}{mounts}", planned.library.display())
    };
    let conflict = |conflict: &Conflict| format!("{}!{}", conflict.library.display(), conflict.app);
    (
        plan.apps.iter().map(app).collect(),
        plan.conflicts.iter().map(conflict).collect(),
    )
}

#[test]
fn each_rule_decides() {
    type Lines = &'static [&'static str];
    let cases: [(&str, Lines, Lines, Lines, Lines, Lines); 14] = [
        (
            "each library is an app",
            &["a: shop /shop", "b: blog /blog"],
            &[],
            &[],
            &["blog: b /blog", "shop: a /shop"],
            &[],
        ),
        (
            "the first by path has the name",
            &["a: shop /shop", "b: shop /shop"],
            &[],
            &[],
            &["shop: a /shop"],
            &["b!shop"],
        ),
        (
            "who has the name keeps it",
            &["a: shop /shop", "b: shop /shop"],
            &[],
            &["shop: b /shop"],
            &["shop: b /shop"],
            &["a!shop"],
        ),
        (
            "a renamed library is the same app",
            &["c: shop /shop"],
            &[],
            &["shop: b /shop"],
            &["shop: c /shop"],
            &[],
        ),
        (
            "two files that are exchanged are the same apps",
            &["a: blog /blog", "b: shop /shop"],
            &[],
            &["shop: a /shop", "blog: b /blog"],
            &["blog: a /blog", "shop: b /shop"],
            &[],
        ),
        (
            "a library that becomes another plugin frees its name",
            &["a: other /other", "b: shop /shop"],
            &[],
            &["shop: a /shop"],
            &["other: a /other", "shop: b /shop"],
            &[],
        ),
        (
            "a bad file leaves the app that serves as it is",
            &["a: bad"],
            &[],
            &["shop: a /shop"],
            &["shop: a"],
            &[],
        ),
        (
            "a bad file gives way to a good one when nothing serves",
            &["a: bad", "b: shop /shop"],
            &[],
            &["-shop: a /shop"],
            &["shop: b /shop"],
            &[],
        ),
        (
            "the first by path has the mount",
            &["a: shop /x", "b: blog /x"],
            &[],
            &[],
            &["shop: a /x"],
            &["b!blog"],
        ),
        (
            "who has the mount keeps it",
            &["a: shop /x", "b: blog /x"],
            &[],
            &["shop: a /x"],
            &["shop: a /x"],
            &["b!blog"],
        ),
        (
            "a promise counts more than a name",
            &["a: shop /y", "b: blog /x"],
            &["/x=shop"],
            &[],
            &["shop: a /x"],
            &["b!blog"],
        ),
        (
            "two apps exchange their mounts",
            &["a: shop /shop", "b: blog /blog"],
            &["/blog=shop", "/shop=blog"],
            &["shop: a /shop", "blog: b /blog"],
            &["blog: b /shop", "shop: a /blog"],
            &[],
        ),
        (
            "what serves stays where it is when its new mount is taken",
            &["a: shop /x", "b: blog /x"],
            &[],
            &["shop: a /shop", "blog: b /x"],
            &["blog: b /x", "shop: a"],
            &["a!shop"],
        ),
        (
            "a mount that an app must keep is not given away",
            &["a: shop /x", "b: blog /x", "c: wiki /shop"],
            &[],
            &["shop: a /shop", "blog: b /x"],
            &["blog: b /x", "shop: a"],
            &["a!shop", "c!wiki"],
        ),
    ];
    for (what, files, mounts, has, apps, conflicts) in cases {
        let plan = plan(&libraries(files), &settings(mounts), &held(has));
        let (are, refused) = shown(&plan);
        assert_eq!(are, apps, "{what}: the apps");
        assert_eq!(refused, conflicts, "{what}: the conflicts");
    }
}

#[test]
fn a_library_whose_load_failed_comes_last_until_something_serves() {
    let files = libraries(&["a: shop /shop broken", "b: shop /shop good"]);
    let mut has = held(&["-shop: a /shop"]);
    has.get_mut("shop").unwrap().failed.insert(hash("broken"));
    let (apps, conflicts) = shown(&plan(&files, &AppSettings::default(), &has));
    assert_eq!(
        (apps, conflicts),
        (vec!["shop: b /shop".to_owned()], vec!["a!shop".to_owned()])
    );

    has.get_mut("shop").unwrap().serves = true;
    let (apps, _) = shown(&plan(&files, &AppSettings::default(), &has));
    assert_eq!(apps, ["shop: a /shop"]);
}

#[test]
fn a_plan_holds_whatever_is_in_the_folder() {
    // Random folders and settings with a fixed seed: no two apps share a mount, a serving app stays unless its library
    // was removed, and each library is an app or has a conflict.
    let mut random = Random::new(7);
    let mut next = |below| random.below(below);
    let mut has = BTreeMap::new();
    for _ in 0..2_000 {
        let mut files = BTreeMap::new();
        for path in ["a", "b", "c", "d"] {
            let plugin = ["shop", "blog", "wiki"][next(3)];
            let library = match next(6) {
                0 => continue,
                1 => Library::Unusable,
                _ => Library::Plugin(LibraryInfo {
                    plugin: plugin.to_owned(),
                    mount: ["/x", "/y", "/z"][next(3)].to_owned(),
                    hash: hash(["v1", "v2"][next(2)]),
                    embedded_library: None,
                    reload: ReloadBy::Auto,
                }),
            };
            files.insert(PathBuf::from(path), library);
        }
        let promise = ["/x=shop", "/y=blog", "/z=wiki"];
        let settings = settings(&promise[..next(4)]);
        let plan = plan(&files, &settings, &has);
        check(&plan, &files, &has);
        has = after(&plan, &has);
    }
}

fn check(plan: &Plan, files: &BTreeMap<PathBuf, Library>, has: &BTreeMap<String, CurrentApp>) {
    let mut mounts = BTreeSet::new();
    for (name, planned) in &plan.apps {
        let spec = planned.spec.as_ref();
        let wanted = spec.map_or_else(|| has[name].mounts.clone(), |spec| spec.mounts.clone());
        for mount in wanted {
            assert!(mounts.insert(mount), "two apps share a mount: {plan:?}");
        }
        assert!(files.contains_key(&planned.library), "{plan:?}");
    }
    for (name, current) in has.iter().filter(|(_, current)| current.serves) {
        let is_somewhere = files.iter().any(|(path, library)| match library {
            Library::Plugin(facts) => facts.plugin == *name,
            Library::Unusable => *path == current.library,
        });
        assert_eq!(
            plan.apps.contains_key(name),
            is_somewhere,
            "{name}: {plan:?}"
        );
    }
    for (path, library) in files {
        let Library::Plugin(facts) = library else {
            continue;
        };
        let is_app = plan
            .apps
            .get(&facts.plugin)
            .is_some_and(|app| app.library == *path);
        let is_refused = plan
            .conflicts
            .iter()
            .any(|conflict| conflict.library == *path);
        assert!(is_app || is_refused, "{}: {plan:?}", path.display());
    }
}

fn after(plan: &Plan, before: &BTreeMap<String, CurrentApp>) -> BTreeMap<String, CurrentApp> {
    let current = |(name, planned): (&String, &PlannedApp)| {
        let mounts = match &planned.spec {
            Some(spec) => spec.mounts.clone(),
            None => before[name].mounts.clone(),
        };
        let current = CurrentApp {
            library: planned.library.clone(),
            mounts,
            serves: true,
            failed: BTreeSet::new(),
        };
        (name.clone(), current)
    };
    plan.apps.iter().map(current).collect()
}
