use super::*;

fn descriptor(facts: &[(&str, &str)]) -> Vec<u8> {
    facts
        .iter()
        .flat_map(|(key, value)| format!("{key}={value}\n").into_bytes())
        .collect()
}

fn shop() -> Vec<(&'static str, &'static str)> {
    let facts = Export::new("shop", "1.2.3").mount("/").facts();
    facts.map(|(key, [value, _])| (key, value)).to_vec()
}

#[test]
fn what_the_macro_writes_parses() {
    const FACTS: Facts<'static> = Export::new("shop", "1.2.3").facts();
    static NOTE: Note<{ note_len(&FACTS) }> = Note::new(&FACTS);
    let manifest = Manifest::parse(&NOTE.descriptor).unwrap();
    assert_eq!(manifest.abi, AbiVersion::CURRENT);
    assert_eq!(
        (&*manifest.name, &*manifest.version, &*manifest.mount),
        ("shop", "1.2.3", "/shop")
    );
    assert_eq!(manifest.panic, "unwind");
    assert_eq!(manifest.tracing_max_level, "trace");
    assert_eq!(manifest.reload, ReloadBy::Auto);
}

#[test]
fn the_keys_of_the_macro_are_facts() {
    const FACTS: Facts<'static> = Export::new("shop-2", "1.2.3")
        .reload("process")
        .mount("/")
        .name("shop")
        .facts();
    static NOTE: Note<{ note_len(&FACTS) }> = Note::new(&FACTS);
    let manifest = Manifest::parse(&NOTE.descriptor).unwrap();
    assert_eq!((&*manifest.name, &*manifest.mount), ("shop", "/"));
    assert_eq!(manifest.reload, ReloadBy::Process);
}

#[test]
fn a_library_of_before_or_later_is_reloaded_as_the_host_thinks_best() {
    for reload in [None, Some("by-some-new-way")] {
        let mut facts = shop();
        facts.retain(|(key, _)| *key != "reload");
        facts.extend(reload.map(|reload| ("reload", reload)));
        let manifest = Manifest::parse(&descriptor(&facts)).unwrap();
        assert_eq!(manifest.reload, ReloadBy::Auto);
    }
}

#[test]
fn unknown_facts_are_skipped_and_missing_ones_are_named() {
    let mut facts = shop();
    facts.push(("colour", "blue"));
    assert!(Manifest::parse(&descriptor(&facts)).is_ok());
    facts.retain(|(key, _)| *key != "panic");
    assert_eq!(
        Manifest::parse(&descriptor(&facts)),
        Err(ManifestError::Missing("panic"))
    );
}

#[test]
fn names_and_mounts_have_a_form() {
    for good in ["/", "/shop", "/a/b.c", "/%20"] {
        assert!(is_mount(good.as_bytes()), "{good}");
    }
    for bad in ["", "shop", "/shop/", "//", "/a//b", "/a?b", "/a b", "/ü"] {
        assert!(!is_mount(bad.as_bytes()), "{bad}");
    }
    assert!(is_name(b"hello-2_x"));
    for bad in ["", "a/b", "a b", "../x", &"x".repeat(65)] {
        assert!(!is_name(bad.as_bytes()), "{bad}");
    }
}
