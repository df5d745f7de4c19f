//! Tests with tables of request heads and the expected results of their check.

use http::Request;

use super::*;

/// Returns the head of a request with the header fields `fields`.
fn head(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder()
        .version(version)
        .method(method)
        .uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn checked(head: &Parts) -> HeadCheck {
    check(head, &HeaderScan::of(head))
}

const BAD_HOST: HeadCheck = HeadCheck::Refuse(Refusal::BadHost);
const BAD_TARGET: HeadCheck = HeadCheck::Refuse(Refusal::BadTarget);

#[test]
fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
    for good in [
        "",
        "a",
        "localhost:8000",
        "example.org",
        "example.org:",
        "a_b.example",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "[fe80::1%25eth0]:80",
        "xn--bcher-kva.example",
        "a%20b",
        "a!$&'()*+;=b",
    ] {
        assert!(is_host(good.as_bytes()), "{good:?}");
    }
    for bad in [
        "a b",
        "u@a",
        "a/b",
        "a,b",
        "a:b",
        "a:80:80",
        ":80",
        "a?b",
        "a#b",
        "a\\b",
        "a%2",
        "a%zz",
        "[::1",
        "::1",
        "[a]",
        "[::1]80",
        "[]",
        "a\"",
        "bücher.example",
        "a[",
        "<a>",
    ] {
        assert!(!is_host(bad.as_bytes()), "{bad:?}");
    }
    assert!(!is_host(b"\xff"));
}

#[test]
fn a_request_of_http_1_is_for_one_host() {
    let get = |version, fields: &[(&str, &str)]| checked(&head(version, "GET", "/a", fields));
    for version in [Version::HTTP_10, Version::HTTP_11] {
        assert_eq!(get(version, &[("host", "a")]), HeadCheck::Valid);
        assert_eq!(get(version, &[("host", "a"), ("host", "a")]), BAD_HOST);
        assert_eq!(get(version, &[("host", "u@a")]), BAD_HOST);
        // Two `cookie` fields of HTTP/1 are not joined.
        let cookies = [("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")];
        assert_eq!(get(version, &cookies), HeadCheck::Valid);
    }
    assert_eq!(get(Version::HTTP_10, &[]), HeadCheck::Valid);
    assert_eq!(get(Version::HTTP_11, &[]), BAD_HOST);
}

#[test]
fn the_form_of_a_target_goes_with_the_method() {
    for (method, target, expected) in [
        ("GET", "/a?b", HeadCheck::Valid),
        ("OPTIONS", "*", HeadCheck::Valid),
        ("GET", "*", BAD_TARGET),
        ("CONNECT", "a:80", HeadCheck::Valid),
        ("CONNECT", "a", BAD_TARGET),
        ("CONNECT", "/a", BAD_TARGET),
        ("CONNECT", "http://a:80/", BAD_TARGET),
        ("GET", "a:80", BAD_TARGET),
        ("OPTIONS", "a", BAD_TARGET),
        ("GET", "http://a/b", HeadCheck::Valid),
        ("GET", "http://a", HeadCheck::Valid),
        ("GET", "http://a?b", HeadCheck::Valid),
        ("GET", "http://other/b", HeadCheck::Normalize),
        ("GET", "http://u@a/b", BAD_HOST),
    ] {
        let head = head(Version::HTTP_11, method, target, &[("host", "a")]);
        assert_eq!(checked(&head), expected, "{method} {target}");
    }
}

#[test]
fn an_absolute_target_says_the_host_in_place_of_the_field() {
    let fields = [("accept", "x"), ("host", "a"), ("cookie", "y")];
    let mut head = head(Version::HTTP_11, "GET", "http://other:8000/b", &fields);
    normalize(&mut head);
    let names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["accept", "host", "cookie"]);
    assert_eq!(head.headers[HOST], "other:8000");
    assert_eq!(checked(&head), HeadCheck::Valid);
}

#[test]
fn a_request_of_http_2_is_for_one_host() {
    for (authority, fields, expected) in [
        ("a", &[][..], HeadCheck::Valid),
        ("a", &[("host", "a")], HeadCheck::Valid),
        ("a:80", &[("host", "A")], HeadCheck::Valid),
        ("a", &[("host", "b")], BAD_HOST),
        ("a", &[("host", "a:81")], BAD_HOST),
        ("a", &[("host", "a"), ("host", "a")], BAD_HOST),
        ("u@a", &[], BAD_HOST),
        ("a,b", &[], BAD_HOST),
        ("", &[("host", "a")], HeadCheck::Valid),
        ("", &[("host", "")], BAD_HOST),
        ("", &[], BAD_HOST),
        ("a", &[("x", " y")], HeadCheck::Refuse(Refusal::BadField)),
        ("a", &[("x", "y\t")], HeadCheck::Refuse(Refusal::BadField)),
        ("a", &[("x", "y z"), ("x", "")], HeadCheck::Valid),
    ] {
        let target = if authority.is_empty() {
            "/b".to_owned()
        } else {
            format!("http://{authority}/b")
        };
        let head = head(Version::HTTP_2, "GET", &target, fields);
        assert_eq!(checked(&head), expected, "{authority:?} {fields:?}");
    }
    assert_eq!(
        checked(&head(Version::HTTP_2, "GET", "http://a?b", &[])),
        BAD_TARGET
    );
    assert_eq!(
        checked(&head(Version::HTTP_2, "CONNECT", "a:443", &[])),
        HeadCheck::Valid
    );
}

#[test]
fn an_extended_connect_of_http_2_has_a_path() {
    let mut head = head(Version::HTTP_2, "CONNECT", "http://a/chat", &[]);
    assert_eq!(checked(&head), BAD_TARGET);
    head.extensions.insert(Protocol::from_static("websocket"));
    assert_eq!(checked(&head), HeadCheck::Valid);
}

#[test]
fn crumbs_of_a_cookie_are_joined_over_http_2() {
    let fields = [("cookie", "a=1"), ("cookie", "b=2")];
    let mut head = head(Version::HTTP_2, "GET", "http://a/", &fields);
    assert_eq!(checked(&head), HeadCheck::Normalize);
    normalize(&mut head);
    assert_eq!(head.headers["cookie"], "a=1; b=2");
    assert_eq!(checked(&head), HeadCheck::Valid);
}
