//! Replacing, removing and renaming libraries while the host serves.

use std::fs;

use host_tests::{Connection, Ctl, Host, Library, Setup, empty, eventually, full};
use hyper::Request;
use tokio::{sync::watch, task::JoinSet};

#[tokio::test]
async fn a_replaced_file_serves_the_new_version() {
    let host = versioned().await;
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    let line = host.log().eventually(&["INFO", FILE, "generation=2"]).await;
    assert!(
        line.contains("replaces=1"),
        "a swap names both generations: {line}"
    );
}

#[tokio::test]
async fn identical_bytes_load_nothing() {
    let host = Setup::new()
        .library(FILE, &Library::version("v1"))
        .arg("--log-level=debug")
        .start()
        .await;
    host.serves("/versioned", "v1").await;
    host.folder().put(FILE, &Library::version("v1"));
    eventually("a line that says so", async || {
        let lines = host.log().with(&[FILE]);
        lines
            .into_iter()
            .find(|line| line.to_lowercase().contains("unchanged"))
    })
    .await;
    host.folder().put(FILE, &Library::version("v2"));
    host.log().eventually(&["INFO", FILE, "generation=2"]).await;
}

#[tokio::test]
async fn a_removed_plugin_is_drained_and_gone() {
    let host = versioned().await;
    let mut connection = host.http1().await;
    let path = format!("/versioned/wait?{}", host.folder().join("go").display());
    let request = Request::get(&path).body(empty()).unwrap();
    let waiting = tokio::spawn(async move { connection.exchange(request).await });
    host.log().eventually(&["v1 waits"]).await;

    host.folder().remove(FILE);
    host.answers("/versioned", 404).await;
    host.log().eventually(&["INFO", "Removed", FILE]).await;
    host.folder().create_empty("go");
    assert_eq!(waiting.await.unwrap().unwrap().text(), "v1");
    host.log().eventually(&["v1 stopped"]).await;

    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_renamed_file_goes_on_serving() {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let host = setup.arg(ctl.option()).start().await;
    host.serves("/versioned", "v1").await;
    // A client sends requests from before the rename until the version under the new name serves. All must succeed.
    let address = host.address();
    let (done, is_done) = watch::channel(false);
    let sampler = tokio::spawn(async move {
        while !*is_done.borrow() {
            let reply = Connection::http1(address).await.get("/versioned").await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    });
    fs::rename(host.folder().join(FILE), host.folder().join("libother.so")).unwrap();
    host.log().eventually(&["INFO", "libother.so"]).await;
    let app = ctl.app("versioned").await;
    assert_eq!(app["serving"]["generation"], 1, "nothing was loaded again");
    host.folder().put("libother.so", &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    done.send(true).unwrap();
    sampler.await.unwrap();
    assert_eq!(host.log().with(&["Removed"]), [""; 0]);
}

#[tokio::test]
async fn two_files_that_are_exchanged_go_on_serving() {
    let setup = Setup::new()
        .library("liba.so", &Library::version("v1"))
        .library("libb.so", &Library::plugin("echo"));
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;
    let folder = host.folder();
    let temporary = folder.join(".temporary");
    fs::rename(folder.join("liba.so"), &temporary).unwrap();
    fs::rename(folder.join("libb.so"), folder.join("liba.so")).unwrap();
    fs::rename(&temporary, folder.join("libb.so")).unwrap();
    host.log()
        .eventually(&["versioned", "Another library takes over"])
        .await;
    host.log()
        .eventually(&["echo", "Another library takes over"])
        .await;
    host.serves("/versioned", "v1").await;
    host.answers("/echo", 200).await;
    assert_eq!(host.log().with(&["Removed"]), [""; 0]);
}

#[tokio::test]
async fn a_request_that_lasts_over_a_swap_ends_on_the_old_version() {
    let host = versioned().await;
    let file = host.folder().join("go");
    let mut requests = JoinSet::new();
    for path in ["wait", "stream"] {
        for mut connection in [host.http1().await, host.http2().await] {
            let path = format!("/versioned/{path}?{}", file.display());
            requests.spawn(async move { connection.get(&path).await.text() });
        }
    }
    eventually("both wait", async || {
        (host.log().with(&["v1 waits"]).len() == 2).then_some(())
    })
    .await;
    // At the swap, two requests wait for their responses, and two streams have sent the first half of their bodies.
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    assert_eq!(
        host.log().with(&["v1 stopped"]),
        [""; 0],
        "the old version has requests"
    );
    host.folder().create_empty("go");
    let mut answers = requests.join_all().await;
    answers.sort();
    assert_eq!(answers, ["v1", "v1", "v1+v1", "v1+v1"]);
    host.log().eventually(&["v1 stopped"]).await;
}

#[tokio::test]
async fn requests_that_outlast_the_graceful_timeout_are_cut_off() {
    let setup = Setup::new()
        .library(FILE, &Library::version("v1"))
        .arg("--graceful-timeout=100ms");
    let host = setup.start().await;
    let mut waiting = host.http1().await;
    let answer = tokio::spawn(async move { waiting.get("/versioned/wait?never").await });
    let mut streaming = host.wire().await;
    streaming
        .send("GET /versioned/stream?never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    streaming.until("+").await;
    host.log().eventually(&["v1 waits"]).await;
    host.folder().put(FILE, &Library::version("v2"));
    assert_eq!(answer.await.unwrap().status, 503);
    // A chunked body that the host aborts has no last chunk, so the client sees that the body is not complete.
    assert!(!streaming.rest().await.contains("0\r\n\r\n"));
    host.log()
        .eventually(&["WARN", "versioned", "generation=1"])
        .await;
    host.log().eventually(&["v1 stopped"]).await;
    // The host ends the app's tasks before the app's runtime, so no task panics because the runtime has shut down.
    let exit = host.stop().await;
    assert!(
        exit.log().iter().all(|line| line.level != "ERROR"),
        "{exit}"
    );
}

#[tokio::test]
async fn a_thousand_requests_during_twenty_replacements_all_succeed() {
    let host = versioned().await;
    let address = host.address();
    let (done, is_done) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let is_done = is_done.clone();
        clients.spawn(async move {
            let mut connection = match number % 4 {
                3 => Connection::http2(address).await,
                _ => Connection::http1(address).await,
            };
            let (mut answered, mut newest) = (0, 0);
            while !*is_done.borrow() || answered < 250 {
                let reply = connection
                    .exchange(Request::get("/versioned").body(full("")).unwrap())
                    .await
                    .unwrap();
                assert_eq!(reply.status, 200, "{}", reply.text());
                let version: u32 = reply.text()[1..].parse().unwrap();
                assert!(version >= newest, "v{version} after v{newest}");
                newest = version;
                answered += 1;
            }
            answered
        });
    }
    for version in 2..=21 {
        let version = format!("v{version}");
        host.folder().put(FILE, &Library::version(&version));
        host.serves("/versioned", &version).await;
    }
    done.send(true).unwrap();
    let answered: u32 = clients.join_all().await.into_iter().sum();
    assert!(answered >= 1000, "{answered}");
    assert_eq!(host.log().with(&["ERROR"]), [""; 0]);
}

#[tokio::test]
async fn a_burst_of_writes_is_few_loads_and_the_last_version() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let host = setup.arg("--quiet-time=500ms").start().await;
    for version in 2..=30 {
        let library = Library::version(&format!("v{version}"));
        host.folder().put(FILE, &library);
    }
    host.serves("/versioned", "v30").await;
    let log = host.stop().await.log_of("host");
    let loads = log.iter().filter(|line| line.text.starts_with("Loaded"));
    assert!(loads.count() < 10, "{log:?}");
}

#[tokio::test]
async fn two_files_with_one_plugin_are_an_error_and_the_first_serves() {
    let host = versioned().await;
    host.folder().put("libzwei.so", &Library::version("v2"));
    let line = host.log().eventually(&["ERROR", "libzwei.so"]).await;
    assert!(line.contains(FILE), "the line names the other file: {line}");
    assert_eq!(host.get("/versioned").await.text(), "v1");
    // The second library is loaded after the first one is removed.
    host.folder().remove(FILE);
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_file_that_becomes_another_plugin_is_that_plugin_only() {
    let host = versioned().await;
    host.folder().put(
        FILE,
        &Library::version("v2")
            .with_fact("name", "other")
            .with_fact("mount", "/other"),
    );
    host.serves("/other", "v2").await;
    host.answers("/versioned", 404).await;
}

#[tokio::test]
async fn a_mount_that_changes_is_where_the_new_version_serves() {
    let host = versioned().await;
    host.folder().put(
        FILE,
        &Library::version("v2").with_fact("mount", "/elsewhere"),
    );
    host.serves("/elsewhere", "v2").await;
    host.answers("/versioned", 404).await;
}

const FILE: &str = "libversioned.so";

/// Starts a host that serves version "v1" of the fixture `versioned`.
async fn versioned() -> Host {
    let host = Setup::new()
        .library(FILE, &Library::version("v1"))
        .start()
        .await;
    host.serves("/versioned", "v1").await;
    host
}
