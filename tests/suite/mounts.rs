//! Mounts: which plugin gets a request, and which path the plugin sees.

use host_tests::{Host, Library, Setup, full};
use hyper::Request;

#[tokio::test]
async fn the_longest_mount_wins() {
    let host = shop().await;
    for (path, mount) in [
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop/carts", "/shop"),
        ("/shop/cart", "/shop/cart"),
        ("/shop/cart/7", "/shop/cart"),
        ("/elsewhere", "/"),
        ("/", "/"),
    ] {
        assert_eq!(host.get(path).await.json()["mount"], mount, "{path}");
    }
}

#[tokio::test]
async fn a_mount_ends_where_a_segment_ends() {
    let host = shop().await;
    for path in ["/shopping", "/shop.html", "/shop%2Fcart", "/sho", "/SHOP"] {
        assert_eq!(host.get(path).await.json()["mount"], "/", "{path}");
    }
    let host = Setup::new().plugin("echo").start().await;
    assert_eq!(host.get("/echoes").await.status, 404);
}

#[tokio::test]
async fn the_app_sees_the_path_below_its_mount_and_the_original() {
    let host = shop().await;
    for (path, uri) in [
        ("/shop/cart", "/"),
        ("/shop/cart/", "/"),
        ("/shop/cart/7/items", "/7/items"),
        ("/shop/cart?q=1", "/?q=1"),
        ("/shop/cart/a%2Fb?q=/shop/cart", "/a%2Fb?q=/shop/cart"),
        ("/shop/cart//7", "//7"),
    ] {
        let seen = host.get(path).await.json();
        assert_eq!(
            (&seen["uri"], &seen["original_path"]),
            (&uri.into(), &path.into())
        );
    }
    let seen = host.get("/elsewhere?q=1").await.json();
    assert_eq!(
        (&seen["uri"], &seen["original_path"]),
        (&"/elsewhere?q=1".into(), &"/elsewhere?q=1".into())
    );
}

#[tokio::test]
async fn redirects_of_an_app_are_as_it_makes_them_and_it_can_know_its_mount() {
    let host = Setup::new()
        .plugin("redirects")
        .arg("--mount=/x=redirects,/y/z=redirects")
        .start()
        .await;
    for mount in ["/x", "/y/z"] {
        let unaware = host.get(&format!("{mount}/unaware")).await;
        assert_eq!(unaware.header("location"), "/new");
        let aware = host.get(&format!("{mount}/aware")).await;
        assert_eq!(aware.header("location"), format!("{mount}/new"));
        assert_eq!(aware.header("set-cookie"), format!("a=1; Path={mount}/"));
        assert_eq!(host.get(aware.header("location")).await.text(), "new");
        let first = host.get(&format!("{mount}/first")).await;
        assert_eq!(first.header("location"), "/x/new");
    }
}

#[tokio::test]
async fn a_plugin_can_be_mounted_in_several_places() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--mount=/a=echo,/b=echo")
        .start()
        .await;
    for mount in ["/a", "/b"] {
        assert_eq!(host.get(&format!("{mount}/x")).await.json()["mount"], mount);
    }
    // The option replaces the default mount of the plugin.
    assert_eq!(host.get("/echo/x").await.status, 404);
}

#[tokio::test]
async fn two_plugins_with_one_mount_are_an_error_and_the_first_serves() {
    let host = Setup::new().plugin("echo").start().await;
    host.folder().put(
        "libversioned.so",
        &Library::version("v1").with_fact("mount", "/echo"),
    );
    let line = host.log().eventually(&["ERROR", "libversioned.so"]).await;
    assert!(line.contains("/echo") && line.contains("--mount"), "{line}");
    assert_eq!(host.get("/echo/x").await.status, 200);
    // The second plugin is loaded after the first one is removed.
    host.folder().remove("libecho.so");
    host.serves("/echo", "v1").await;
}

#[tokio::test]
async fn of_two_that_are_there_at_the_start_the_first_by_its_path_serves() {
    // The first library by path is much larger, so the host finishes reading the second library before it.
    let mut long = Library::version("first")
        .with_fact("mount", "/here")
        .bytes()
        .to_vec();
    long.resize(long.len() + (32 << 20), 0);
    let short = Library::plugin("echo").with_fact("mount", "/here");
    let setup = Setup::new().library("liba.so", &Library::new(long));
    let host = setup.library("libb.so", &short).start().await;
    host.serves("/here", "first").await;
    let line = host.log().eventually(&["ERROR", "libb.so"]).await;
    assert!(
        line.contains("taken by versioned (") && line.contains("liba.so)"),
        "{line}"
    );
}

#[tokio::test]
async fn what_is_said_of_apps_that_are_not_there_is_told() {
    let setup = Setup::new().plugin("echo");
    let file = setup.folder().join("host.toml");
    std::fs::write(
        &file,
        "[app.shop]\nplugin = 'shopp'\n[app.eu]\nplugin = 'echo'",
    )
    .unwrap();
    let setup = setup.arg("--config").arg(&file);
    let host = setup.arg("--mount=/a=eu,/b=ecko,/c=echo").start().await;
    host.log()
        .eventually(&["WARN", "app=shop plugin=shopp"])
        .await;
    host.log().eventually(&["WARN", "path=/b app=ecko"]).await;
    // The plugin `echo` exists, but `[app.eu]` is its only app, so no app is named `echo`.
    host.log().eventually(&["WARN", "path=/c app=echo"]).await;
    assert_eq!(host.get("/a").await.status, 200);
    assert_eq!(host.log().with(&["or not yet"]).len(), 3);
}

#[tokio::test]
async fn a_target_without_a_path_reaches_what_is_mounted_at_the_root() {
    let host = Setup::new()
        .plugin("echo")
        .arg("--mount=/=echo")
        .start()
        .await;
    let mut wire = host.wire().await;
    wire.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(body.contains(r#""uri":"*""#), "{body}");
    wire.send("GET http://example.org/a?b HTTP/1.1\r\nHost: example.org\r\n\r\n")
        .await;
    let (_, body) = wire.response().await;
    assert!(body.contains(r#""uri":"http://example.org/a?b""#), "{body}");
}

/// Starts a host with the fixture `echo` under three names and mounts. Its responses contain the mount.
async fn shop() -> Host {
    let named = |name: &str, mount: &str| {
        Library::plugin("echo")
            .with_fact("name", name)
            .with_fact("mount", mount)
    };
    let setup = Setup::new().library("libroot.so", &named("root", "/"));
    let setup = setup.library("libshop.so", &named("shop", "/shop"));
    setup
        .library("libcart.so", &named("cart", "/shop/cart"))
        .start()
        .await
}

#[tokio::test]
async fn a_refused_request_says_why_at_debug_level() {
    let setup = Setup::new().plugin("versioned").plugin("counter");
    let setup = setup.args(&["--log-level=debug", "--max-body-size=1KiB"]);
    let host = setup.start().await;
    host.answers("/versioned", 200).await;
    host.answers("/counter/version", 200).await;
    assert_eq!(host.get("/nowhere").await.status, 404);
    let parts = [
        "DEBUG",
        "No app answers the request: no app is mounted at the path",
        "path=/nowhere",
        "mounts=\"/counter /versioned\"",
        "in request{id=",
    ];
    host.log().eventually(&parts).await;
    let large = Request::post("/versioned")
        .body(full(vec![0; 2048]))
        .unwrap();
    assert_eq!(host.exchange(large).await.status, 413);
    let parts = ["DEBUG", "the body is larger than --max-body-size"];
    host.log().eventually(&parts).await;
}
