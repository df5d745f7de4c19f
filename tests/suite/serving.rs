//! Libraries in the plugins folder become apps that serve.

use host_tests::{Library, Setup};

#[tokio::test]
async fn a_plugin_in_the_folder_serves_the_first_request() {
    let host = Setup::new().plugin("hello").start().await;
    let reply = host.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.text()),
        (200, r#""hello world""#)
    );
    assert_eq!(reply.header("content-type"), "application/json");
    let quiet = host.get("/quiet").await;
    assert_eq!(quiet.text(), "hello world");
    assert_eq!(quiet.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn several_plugins_serve_side_by_side() {
    let host = Setup::new()
        .plugin("hello")
        .plugin("versioned")
        .plugin("echo")
        .start()
        .await;
    assert_eq!(host.get("/quiet").await.text(), "hello world");
    assert_eq!(host.get("/versioned").await.text(), "unmarked");
    assert_eq!(host.get("/echo/x").await.json()["uri"], "/x");
}

#[tokio::test]
async fn a_plugin_dropped_into_the_folder_serves() {
    let host = Setup::new().start().await;
    assert_eq!(host.get("/versioned").await.status, 404);
    host.folder()
        .put("libversioned.so", &Library::version("v1"));
    host.serves("/versioned", "v1").await;
}

#[tokio::test]
async fn a_load_is_one_line_that_names_plugin_generation_version_and_mount() {
    let host = Setup::new().plugin("versioned").start().await;
    host.serves("/versioned", "unmarked").await;
    let lines: Vec<_> = host.stop().await.log_of("host");
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line.text.contains("libversioned.so"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].level, "INFO");
    for part in ["versioned", "generation=1", "0.1.0", "/versioned"] {
        assert!(lines[0].text.contains(part), "{lines:?}");
    }
}

#[tokio::test]
async fn a_plugin_of_a_newer_minor_abi_serves() {
    let newer = Library::version("newer").with_fact("abi", "1.999");
    let host = Setup::new()
        .library("libversioned.so", &newer)
        .start()
        .await;
    host.serves("/versioned", "newer").await;
}

#[tokio::test]
async fn two_hosts_can_share_a_plugins_folder() {
    let one = Setup::new().start().await;
    let two = Setup::new()
        .env("HOST_PLUGINS", one.folder().path())
        .start()
        .await;
    for version in ["v1", "v2"] {
        one.folder()
            .put("libversioned.so", &Library::version(version));
        one.serves("/versioned", version).await;
        two.serves("/versioned", version).await;
    }
    assert_eq!(one.stop().await.code, Some(0));
    assert_eq!(two.get("/versioned").await.text(), "v2");
}

#[tokio::test]
async fn without_plugins_everything_is_404() {
    let host = Setup::new().start().await;
    for path in ["/", "/hello", "/a/b?c=d"] {
        assert_eq!(host.get(path).await.status, 404);
    }
}

#[tokio::test]
async fn a_plugins_folder_that_goes_is_a_warning_and_loads_when_it_comes_back() {
    let setup = Setup::new();
    let folder = setup.folder().join("later");
    let state = setup.folder().join("state");
    std::fs::create_dir_all(&folder).unwrap();
    let host = setup
        .env("HOST_PLUGINS", &folder)
        .env("HOST_STATE_DIR", state)
        .arg("--rescan=50ms")
        .start()
        .await;
    std::fs::remove_dir(&folder).unwrap();
    host.log().eventually(&["WARN", "missing", "later"]).await;
    std::fs::create_dir_all(&folder).unwrap();
    host.folder()
        .put("later/libversioned.so", &Library::version("v1"));
    host.serves("/versioned", "v1").await;
}

#[tokio::test]
async fn files_that_are_no_libraries_by_name_are_left_alone() {
    let text = Library::new("nothing of interest");
    let setup = Setup::new()
        .library("README.md", &text)
        .library(".hidden.so", &text)
        .library("x.so.bak", &text);
    let host = setup.plugin("versioned").start().await;
    host.serves("/versioned", "unmarked").await;
    assert!(
        host.stop()
            .await
            .log()
            .iter()
            .all(|line| line.level == "INFO")
    );
}

#[tokio::test]
async fn the_app_sees_the_request_as_it_was_sent() {
    let host = Setup::new().plugin("echo").start().await;
    let mut wire = host.wire().await;
    wire.send("PATCH /echo/a%20b?q=%C3%A4&q=2 HTTP/1.1\r\nHost: example.org:81\r\nX-Two: 1\r\nx-two: 2\r\n\r\n").await;
    let (head, body) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let seen: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(seen["method"], "PATCH");
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(seen["uri"], "/a%20b?q=%C3%A4&q=2");
    assert_eq!(seen["original_path"], "/echo/a%20b?q=%C3%A4&q=2");
    assert_eq!(seen["mount"], "/echo");
    assert_eq!(
        seen["peer"],
        wire.stream().local_addr().unwrap().to_string()
    );
    let headers = serde_json::json!([["host", "example.org:81"], ["x-two", "1"], ["x-two", "2"]]);
    assert_eq!(seen["headers"], headers);
}

#[tokio::test]
async fn an_app_that_blocks_a_thread_holds_up_nobody_else() {
    let host = Setup::new()
        .plugin("moody")
        .arg("--threads=2")
        .start()
        .await;
    // Both connections are opened and accepted before the test, because accepting a new connection would wake both
    // threads.
    let (mut one, mut other) = (host.http1().await, host.http1().await);
    for connection in [&mut one, &mut other] {
        assert_eq!(connection.get("/moody").await.text(), "unmarked");
    }
    let blocked = one.get("/moody/block");
    let unblock = async {
        host.log().eventually(&["INFO", "Blocked"]).await;
        other.get("/moody/go").await
    };
    let (blocked, unblocked) = tokio::join!(blocked, unblock);
    assert_eq!((&*blocked.text(), &*unblocked.text()), ("blocked", "gone"));
}
