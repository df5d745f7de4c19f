use super::*;
use crate::crossing::HeaderFields;

/// Returns the fields of a map that is still alive.
fn view(fields: &HeaderFields) -> &[HeaderView<'_>] {
    // SAFETY: in each test the map outlives `fields`.
    unsafe { fields.as_abi().view() }
}

fn crossed(map: &HeaderMap) -> HeaderMap {
    let fields = HeaderFields::new(map);
    let mut crossed = HeaderMap::new();
    with(|cache| cache.fill(&mut crossed, view(&fields))).unwrap();
    crossed
}

#[test]
fn fields_cross_the_same_however_often() {
    let maps = [
        &[
            ("host", "a"),
            ("accept", "*/*"),
            ("te", "x"),
            ("x-one", "1"),
        ][..],
        &[("host", "b"), ("accept", ""), ("te", "y"), ("x-one", "2")],
        // Names with the same lengths as above.
        &[("host", "b"), ("accept", "c"), ("te", "z"), ("x-two", "2")],
        &[("te", "z"), ("accept", "c"), ("host", "b"), ("x-two", "2")],
        &[("host", "a"), ("x-one", "1")],
        &[("set-cookie", "a=1"), ("set-cookie", "b=2")],
        &[],
    ];
    for _ in 0..3 {
        for fields in maps {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            let crossed = crossed(&map);
            let in_order = |map: &HeaderMap| format!("{map:?}");
            assert_eq!(in_order(&crossed), in_order(&map));
        }
    }
}

#[test]
fn what_comes_twice_is_kept_but_no_secret() {
    let mut map = HeaderMap::new();
    for (name, value) in [
        ("host", "a"),
        ("authorization", "hush"),
        ("cookie", "hush"),
        ("x-key", "hush"),
        ("x-one", "1"),
    ] {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(name == "x-key");
        map.append(name, value);
    }
    for _ in 0..4 {
        assert_eq!(crossed(&map), map);
    }
    let fields = HeaderFields::new(&map);
    let hash = template::hash(view(&fields));
    let cached = with(|Cache(caches)| Some(caches.as_ref()?.templates.get(hash)?.map().clone()));
    let cached = cached.unwrap();
    let values: Vec<_> = cached.values().map(HeaderValue::as_bytes).collect();
    assert_eq!(values, [&b"a"[..], b"", b"", b"", b"1"]);
}

#[test]
fn maps_with_long_names_cross_and_are_not_kept() {
    for (len, is_cached) in [
        (MAX_CACHED_LEN, true),
        (MAX_CACHED_LEN + 1, false),
        (1024, false),
    ] {
        let mut map = HeaderMap::new();
        for name in ["a", "b", "c", &"d".repeat(len)] {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_static("1"));
        }
        for _ in 0..4 {
            assert_eq!(crossed(&map), map);
        }
        let fields = HeaderFields::new(&map);
        let hash = template::hash(view(&fields));
        let cached = with(|Cache(caches)| Some(caches.as_ref()?.templates.get(hash).is_some()));
        assert_eq!(cached, Some(is_cached), "{len}");
    }
}

#[test]
fn a_kept_value_that_is_a_secret_now_crosses_as_one_in_each_place() {
    let mut map: HeaderMap = (0..template::MAX_FIELDS)
        .map(|at| {
            let name: HeaderName = format!("x-{at}").parse().unwrap();
            (name, HeaderValue::from_static("same"))
        })
        .collect();
    for _ in 0..4 {
        assert_eq!(crossed(&map), map);
    }
    for at in 0..template::MAX_FIELDS {
        let name = format!("x-{at}");
        map.get_mut(&name).unwrap().set_sensitive(true);
        let crossed = crossed(&map);
        let secrets = crossed.iter().filter(|(_, value)| value.is_sensitive());
        let secrets: Vec<_> = secrets.map(|(name, _)| name.as_str()).collect();
        assert_eq!(secrets, [name.as_str()]);
        map.get_mut(&name).unwrap().set_sensitive(false);
    }
    assert!(crossed(&map).values().all(|value| !value.is_sensitive()));
}

#[test]
fn fields_cross_as_they_are() {
    let mut map = HeaderMap::new();
    map.append("x-many", HeaderValue::from_static("one"));
    map.append("x-many", HeaderValue::from_static(""));
    map.append("x-bytes", HeaderValue::from_bytes(b"caf\xe9\x80").unwrap());
    map.append("content-type", HeaderValue::from_static("text/plain"));
    let mut secret = HeaderValue::from_static("hush");
    secret.set_sensitive(true);
    map.append("authorization", secret);

    let fields = HeaderFields::new(&map);
    let mut crossed = HeaderMap::new();
    with(|cache| cache.add(&mut crossed, view(&fields))).unwrap();
    assert_eq!(crossed, map);
    assert!(crossed["authorization"].is_sensitive());
}

#[test]
fn secrets_are_not_kept_whoever_knows_their_numbers() {
    for (name, id, expected) in [
        ("cookie", 31, false),
        ("cookie", 0, false),
        ("authorization", 0, false),
        ("proxy-authorization", 0, false),
        ("set-cookie", 0, false),
        ("accept", 1, true),
        ("accept", 0, true),
    ] {
        let cacheable = is_cacheable(&HeaderView::new(name, "hush", id));
        assert_eq!(cacheable, expected, "{name} {id}");
    }
}

#[test]
fn a_field_that_would_split_a_message_is_refused() {
    let field = HeaderView::new("x", "a\r\nb: c", 0);
    let added = with(|cache| cache.add(&mut HeaderMap::new(), &[field]));
    assert!(added.is_err());
}
