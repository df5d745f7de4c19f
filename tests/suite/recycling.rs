//! Workers that are replaced by fresh workers: on request, by age, by the size of their copies of libraries, after a
//! crash, and for apps that are reloaded by process. No request and no state of an app is lost.

use std::time::Duration;

use host_tests::{Connection, Ctl, Host, Library, Setup, Wire, empty, eventually};
use hyper::Request;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

#[tokio::test]
async fn no_request_and_no_update_is_lost_through_ten_recycles() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("hello").library(FILE, &counter("v1"));
    let host = setup.arg(ctl.option()).start().await;
    host.serves("/counter/version", "v1").await;
    let address = host.address();
    let (done, is_done) = watch::channel(false);
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let is_done = is_done.clone();
        let path = if client < 4 { "/counter" } else { "/" };
        let is_keep_alive = client % 2 == 0;
        clients.spawn(async move {
            let (mut answers, mut idle_connection) = (0, None);
            while !*is_done.borrow() {
                let mut connection = match idle_connection.take() {
                    Some(connection) => connection,
                    None => Connection::http1(address).await,
                };
                let request = Request::get(path).body(empty()).unwrap();
                match connection.exchange(request).await {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                        answers += u64::from(path == "/counter");
                        idle_connection = Some(connection).filter(|_| is_keep_alive);
                    }
                    // The server has closed the idle connection before the request was sent, which HTTP/1.1 allows.
                    Err(error) => assert!(
                        error.is_canceled() || error.is_closed(),
                        "{path}: {error:?}"
                    ),
                }
            }
            answers
        });
    }
    for _ in 0..10 {
        let answer = ctl.json(&["recycle"]).await;
        assert_eq!(answer["recycled"], 1);
    }
    done.send(true).unwrap();
    let answers: u64 = clients.join_all().await.into_iter().sum();
    assert_eq!(host.get("/counter").await.text(), (answers + 1).to_string());
    assert_eq!(host.log().with(&["INFO", "Recycled"]).len(), 10);
    assert_eq!(ctl.app("counter").await["serving"]["generation"], 1);
    // In the fresh worker the numbers of generations continue, so the next load is generation 2.
    host.folder().put(FILE, &counter("v2"));
    host.serves("/counter/version", "v2").await;
    host.log()
        .eventually(&["Loaded", "counter", "generation=2", "replaces=1"])
        .await;
    let last: u64 = host.get("/counter").await.text().parse().unwrap();
    assert_eq!(last, answers + 2);
}

#[tokio::test]
async fn a_request_that_is_in_the_old_worker_is_answered_and_its_connection_closed() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("versioned");
    let host = setup.arg(ctl.option()).start().await;
    host.answers("/versioned", 200).await;
    let (mut wire, recycle) = recycle_during_request(&host, ctl).await;
    // The fresh worker serves while the old one drains.
    assert_eq!(host.get("/versioned").await.status, 200);
    host.folder().create_empty("go");
    let response = wire.rest().await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let head = response.to_lowercase();
    assert!(head.contains("connection: close\r\n"), "{response}");
    assert_eq!(recycle.await.unwrap().0, 1);
}

#[tokio::test]
async fn an_app_gets_its_state_while_a_request_to_another_app_goes_on() {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .plugin("versioned")
        .library(FILE, &counter("v1"));
    let setup = setup.arg(ctl.option()).arg("--handover-timeout=1h");
    let host = setup.start().await;
    host.serves("/counter/version", "v1").await;
    assert_eq!(host.get("/counter").await.text(), "1");
    host.answers("/versioned", 200).await;
    let (mut wire, recycle) = recycle_during_request(&host, ctl).await;
    // The fresh worker has the state of the counter, although the old worker still waits for the request to
    // `versioned`.
    assert_eq!(host.get("/counter").await.text(), "2");
    host.folder().create_empty("go");
    assert!(wire.rest().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(recycle.await.unwrap().0, 1);
    assert_eq!(host.get("/counter").await.text(), "3");
}

#[tokio::test]
async fn several_workers_are_recycled_one_after_the_other() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("hello").arg("--workers=2");
    let host = setup.arg(ctl.option()).start().await;
    host.answers("/", 200).await;
    eventually("both workers serve", async || {
        (host.log().with(&["Worker started"]).len() == 2).then_some(())
    })
    .await;
    assert_eq!(ctl.json(&["recycle"]).await["recycled"], 2);
    assert_eq!(host.get("/").await.status, 200);
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_worker_ends_when_it_is_old() {
    let setup = Setup::new().plugin("hello").arg("--worker-max-age=1s");
    let host: Host = setup.start().await;
    host.answers("/", 200).await;
    let parts = ["INFO", "Recycled", "--worker-max-age"];
    host.log().eventually(&parts).await;
    assert_eq!(host.get("/").await.status, 200);
}

#[tokio::test]
async fn a_host_of_one_process_has_no_workers_to_recycle() {
    let ctl = Ctl::new();
    let setup = Setup::new().arg("--workers=0").arg(ctl.option());
    let _host = setup.start().await;
    let refusal = ctl.refusal(&["recycle"]).await;
    assert!(refusal.contains("--workers=0"), "{refusal}");
}

#[tokio::test]
async fn a_worker_that_dies_is_replaced_and_what_waits_in_the_queue_is_answered() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("hello");
    let host = setup.arg(ctl.option()).start().await;
    host.answers("/", 200).await;
    let address = host.address();
    let kill_worker = async || {
        let parts = ["Worker started"];
        let started = host.log().with(&parts);
        let pid = started.last().unwrap().split("pid=").nth(1).unwrap();
        let pid: i32 = pid.split_whitespace().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        started.len()
    };
    for _ in 0..2 {
        let before = kill_worker().await;
        // Connections are never refused, because the supervisor holds the listening socket.
        let mut connection = Connection::http1(address).await;
        assert_eq!(connection.get("/").await.status, 200);
        host.log().nth_with(before, &["Worker started"]).await;
    }
    let died = host
        .log()
        .eventually(&["ERROR", "Worker died", "SIGKILL"])
        .await;
    assert!(!died.contains("plugin="), "{died}");
    tokio::time::timeout(Duration::from_secs(20), host.stop())
        .await
        .unwrap();
}

/// Sends a request that waits for the file `go`, and recycles the worker that has the request. Returns
/// when the worker drains: the connection of the request, and the task that recycles. The task returns the
/// number of recycled workers and the control socket.
async fn recycle_during_request(host: &Host, ctl: Ctl) -> (Wire, JoinHandle<(Value, Ctl)>) {
    let mut wire = host.wire().await;
    let file = host.folder().join("go");
    wire.send(format!(
        "GET /versioned/wait?{} HTTP/1.1\r\nHost: x\r\n\r\n",
        file.display()
    ))
    .await;
    host.log().eventually(&["waits"]).await;
    let recycle = tokio::spawn(async move {
        let answer = ctl.json(&["recycle"]).await;
        (answer["recycled"].clone(), ctl)
    });
    host.log()
        .eventually(&["Finishing what is in flight"])
        .await;
    (wire, recycle)
}

#[tokio::test]
async fn a_worker_ends_when_the_copies_of_its_replaced_libraries_take_too_much() {
    let ctl = Ctl::new();
    let library = Library::plugin("counter").stripped();
    let setup = Setup::new().library(FILE, &library.marked("v0"));
    let setup = setup.arg(ctl.option());
    let limit = 2 * library.bytes().len();
    let setup = setup.arg(format!("--worker-max-copies={limit}"));
    let host = setup.start().await;
    host.serves("/counter/version", "v0").await;
    for version in 1..=3 {
        // The copies of the serving library and of its predecessor do not count towards the limit.
        assert!(host.log().with(&["Recycling a worker"]).is_empty());
        let mark = format!("v{version}");
        host.folder().put(FILE, &library.marked(&mark));
        host.serves("/counter/version", &mark).await;
    }
    let mut version = 4;
    eventually("the copies are too much", async || {
        if host
            .log()
            .with(&["Recycled", "--worker-max-copies"])
            .is_empty()
        {
            let mark = format!("v{version}");
            host.folder().put(FILE, &library.marked(&mark));
            host.serves("/counter/version", &mark).await;
            version += 1;
            return None;
        }
        Some(())
    })
    .await;
    // After the recycle, only copies of libraries that can be started again are left.
    let report = ctl.json(&["plugins"]).await;
    assert!(
        report["copies_bytes"].as_u64().unwrap() <= 2 * limit as u64,
        "{report}"
    );
}

const FILE: &str = "libcounter.so";

/// Returns the fixture `counter` with a mark: a version, and perhaps a misbehaviour.
fn counter(mark: &str) -> Library {
    Library::plugin("counter").marked(mark)
}

/// Starts a host that serves version "v1" of the fixture `counter`. `reload` is a line of the app's table in the
/// configuration file, such as `reload = 'process'`, or empty.
async fn start_counter(library: &Library, reload: &str) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, library).arg(ctl.option());
    let config = setup.folder().join("host.toml");
    std::fs::write(&config, format!("[app.counter]\n{reload}")).unwrap();
    let host = setup.arg("--config").arg(&config).start().await;
    host.serves("/counter/version", "v1").await;
    (host, ctl)
}

#[tokio::test]
async fn an_app_that_is_reloaded_by_process_keeps_its_state() {
    let (host, ctl) = start_counter(&counter("v1"), "reload = 'process'").await;
    assert_eq!(host.get("/counter").await.text(), "1");
    host.folder().put(FILE, &counter("v2"));
    host.serves("/counter/version", "v2").await;
    let loaded = ["Loaded", "generation=2", "replaces=1", "by_process="];
    host.log().eventually(&loaded).await;
    host.log()
        .eventually(&["Recycled", "an app is reloaded by process"])
        .await;
    assert_eq!(host.get("/counter").await.text(), "2");
    assert_eq!(host.log().with(&["Worker started"]).len(), 2);

    let proof = ctl.json(&["reload", "counter"]).await;
    assert_eq!(proof["new_generation"], 3);
    assert_eq!(host.get("/counter").await.text(), "3");
    assert_eq!(host.log().with(&["ERROR"]), [""; 0]);
}

#[tokio::test]
async fn a_version_that_begins_to_hand_over_keeps_its_state_at_the_next_recycle() {
    let (host, ctl) = start_counter(&counter("v1"), "reload = 'process'").await;
    for mark in ["v2 forgets", "v3"] {
        host.folder().put(FILE, &counter(mark));
        host.serves("/counter/version", mark).await;
        let recycled = ["Recycled", "an app is reloaded by process"];
        host.log().eventually(&recycled).await;
    }
    host.log().eventually(&["Loaded", "generation=3"]).await;
    assert_eq!(host.get("/counter").await.text(), "1");
    assert_eq!(ctl.json(&["recycle"]).await["recycled"], 1);
    assert_eq!(host.get("/counter").await.text(), "2");
}

#[tokio::test]
async fn one_that_does_not_start_in_the_fresh_worker_changes_nothing() {
    let (host, ctl) = start_counter(&counter("v1"), "reload = 'process'").await;
    assert_eq!(host.get("/counter").await.text(), "1");
    host.folder().put(FILE, &counter("v2 fails"));
    host.log()
        .eventually(&["ERROR", "continues to serve", "it is told to fail"])
        .await;
    host.serves("/counter/version", "v1").await;
    assert_eq!(host.get("/counter").await.text(), "2");
    let refusal = ctl.refusal(&["reload", "counter"]).await;
    assert!(refusal.contains("it is told to fail"), "{refusal}");
    host.folder().put(FILE, &counter("v3"));
    host.serves("/counter/version", "v3").await;
    assert_eq!(host.get("/counter").await.text(), "3");
}

#[tokio::test]
async fn a_library_that_carries_sqlite_is_reloaded_by_process_unless_told_otherwise() {
    let carries = |mark: &str| with_sqlite(&counter(mark));
    for (reload, workers) in [("", 2), ("reload = 'swap'", 1)] {
        let (host, _ctl) = start_counter(&carries("v1"), reload).await;
        host.folder().put(FILE, &carries("v2"));
        host.serves("/counter/version", "v2").await;
        host.log().eventually(&["Loaded", "generation=2"]).await;
        assert_eq!(host.log().with(&["Worker started"]).len(), workers);
        let reasons = host.log().with(&["Loaded", "carries SQLite"]);
        assert_eq!(reasons.is_empty(), workers == 1);
    }
}

#[tokio::test]
async fn an_app_is_reloaded_as_its_author_asks_for_unless_the_operator_says_otherwise() {
    let asks = |mark: &str| counter(mark).with_fact("reload", "process");
    for (reload, workers) in [("", 2), ("reload = 'auto'", 1), ("reload = 'swap'", 1)] {
        let (host, _ctl) = start_counter(&asks("v1"), reload).await;
        host.folder().put(FILE, &asks("v2"));
        host.serves("/counter/version", "v2").await;
        host.log().eventually(&["Loaded", "generation=2"]).await;
        assert_eq!(host.log().with(&["Worker started"]).len(), workers);
        let reasons = host.log().with(&["Loaded", "the plugin asks for it"]);
        assert_eq!(reasons.is_empty(), workers == 1);
    }
}

#[tokio::test]
async fn two_apps_that_carry_sqlite_are_told_of_once() {
    let setup = Setup::new()
        .library(FILE, &with_sqlite(&counter("v1")))
        .library("libversioned.so", &with_sqlite(&Library::version("v1")))
        .plugin("hello");
    let host = setup.start().await;
    host.serves("/counter/version", "v1").await;
    host.serves("/versioned", "v1").await;
    let parts = ["WARN", "carry SQLite", "counter", "versioned"];
    host.log().eventually(&parts).await;
    host.folder().put(FILE, &with_sqlite(&counter("v2")));
    host.serves("/counter/version", "v2").await;
    assert_eq!(host.log().with(&["carry SQLite"]).len(), 1);
}

/// Returns the library with texts appended by which the host recognizes the code of SQLite.
fn with_sqlite(library: &Library) -> Library {
    let mut bytes = library.bytes().to_vec();
    bytes.extend(b"SQLite format 3\0 database disk image is malformed");
    Library::new(bytes)
}
