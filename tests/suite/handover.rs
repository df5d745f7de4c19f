//! State that a plugin hands over to its next version. No state and no request is lost, even if a step fails.

use std::{net::TcpListener, time::Duration};

use host_tests::{Connection, Ctl, Host, Library, Setup, Wire, eventually};
use tokio::{sync::watch, task::JoinSet, time::timeout};

#[tokio::test]
async fn no_update_is_lost_through_forty_reloads() {
    let (host, ctl) = counter(&[]).await;
    let address = host.address();
    let (done, is_done) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        let is_done = is_done.clone();
        clients.spawn(async move {
            let mut connection = Connection::http1(address).await;
            let (mut answers, mut last) = (0, 0);
            while !*is_done.borrow() {
                let reply = connection.get("/counter").await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                let count: u64 = reply.text().parse().unwrap();
                assert!(count > last, "{count} after {last}");
                (answers, last) = (answers + 1, count);
            }
            answers
        });
    }
    for version in 2..=41 {
        host.folder().put(FILE, &library(&format!("v{version}")));
        host.serves("/counter/version", &format!("v{version}"))
            .await;
    }
    done.send(true).unwrap();
    let answers: u64 = clients.join_all().await.into_iter().sum();
    assert_eq!(host.get("/counter").await.text(), (answers + 1).to_string());
    assert_eq!(host.log().with(&["ERROR"]), [""; 0]);
    assert_eq!(ctl.app("counter").await["serving"]["generation"], 41);
}

#[tokio::test]
async fn requests_wait_until_the_last_one_has_left() {
    let (host, ctl) = counter(&[]).await;
    let path = format!("/counter/later?{}", host.folder().join("go").display());
    let mut connection = host.http1().await;
    let last = tokio::spawn(async move { connection.get(&path).await.text() });
    host.log().eventually(&["v1 waits"]).await;
    host.folder().put(FILE, &library("v2"));
    let draining = |app: &serde_json::Value| app["state"] == "loading: drain";
    ctl.eventually("a drain before the handover", "counter", draining)
        .await;

    let mut wire = send_waiting_request(&host).await;
    host.folder().create_empty("go");
    assert_eq!(last.await.unwrap(), "1");
    assert_eq!(wire.response().await.1, "2");
    assert_eq!(host.get("/counter/version").await.text(), "v2");
    host.log().eventually(&["v2 starts with 1"]).await;
}

#[tokio::test]
async fn when_anything_fails_the_old_version_serves_on_with_its_state() {
    let (host, _ctl) = counter(&["--handover-timeout=500ms"]).await;
    assert_eq!(host.get("/counter").await.text(), "1");
    for (count, version, reason) in [
        (2, "v2 fails", "it is told to fail"),
        (3, "v3 panics", "it is told to panic"),
        (4, "v4 blocks", "did not start within"),
    ] {
        host.folder().put(FILE, &library(version));
        host.log()
            .eventually(&["ERROR", FILE, "continues to serve", reason])
            .await;
        assert_eq!(host.get("/counter").await.text(), count.to_string());
        assert_eq!(host.get("/counter/version").await.text(), "v1");
    }
    host.folder().put(FILE, &library("v5"));
    host.serves("/counter/version", "v5").await;
    assert_eq!(host.get("/counter").await.text(), "5");
}

#[tokio::test]
async fn a_handover_that_fails_keeps_the_old_version() {
    for (mood, reason) in [
        ("keeps", "it is told to keep its state"),
        ("drops", "it is told to panic in the handover"),
        ("stalls", "took longer than"),
        ("seizes", "did not hand its state over within"),
    ] {
        let setup = Setup::new().library(FILE, &library(&format!("v1 {mood}")));
        let host = setup.arg("--handover-timeout=300ms").start().await;
        host.serves("/counter", "1").await;
        host.folder().put(FILE, &library("v2"));
        let line = host.log().eventually(&["ERROR", FILE, reason]).await;
        assert!(line.contains("step=handover"), "{line}");
        assert_eq!(host.get("/counter").await.text(), "2");
    }
}

#[tokio::test]
async fn a_request_that_does_not_end_keeps_the_old_version() {
    let (host, _ctl) = counter(&["--handover-timeout=300ms"]).await;
    let path = format!("/counter/later?{}", host.folder().join("go").display());
    let mut connection = host.http1().await;
    let endless = tokio::spawn(async move { connection.get(&path).await.text() });
    host.log().eventually(&["v1 waits"]).await;
    host.folder().put(FILE, &library("v2"));
    let line = host
        .log()
        .eventually(&["ERROR", FILE, "--handover-timeout"])
        .await;
    assert!(line.contains("1 requests"), "{line}");
    assert_eq!(host.get("/counter").await.text(), "1");
    host.folder().create_empty("go");
    assert_eq!(endless.await.unwrap(), "2");
}

#[tokio::test]
async fn what_has_no_end_may_end_for_the_handover() {
    let (host, _ctl) = counter(&[]).await;
    let endless = async || {
        let mut wire = host.wire().await;
        wire.send("GET /counter/drained HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        wire
    };
    // A handover that fails ends the drain, so a later request does not see that the app drains.
    let mut first = endless().await;
    host.log().eventually(&["v1 waits"]).await;
    host.folder().put(FILE, &library("v2 fails"));
    assert_eq!(first.response().await.1, "drained");
    host.log()
        .eventually(&["ERROR", FILE, "continues to serve"])
        .await;
    let mut second = endless().await;
    let end = timeout(Duration::from_millis(300), second.head()).await;
    assert!(end.is_err(), "it was told to end: {end:?}");

    host.folder().put(FILE, &library("v3"));
    assert_eq!(second.response().await.1, "drained");
    host.serves("/counter/version", "v3").await;
}

#[tokio::test]
async fn a_version_that_goes_on_takes_back_what_it_let_go_of() {
    for mood in ["v1", "v1 errs"] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let holder = |mark: &str| Library::plugin("holder").marked(mark);
        let setup = Setup::new().library("libholder.so", &holder(mood));
        let host = setup.env("HOLDER_ADDRESS", &address).start().await;
        let holds = |mark: &str| format!("{mark} holds, draining false");
        assert_eq!(host.get("/holder").await.text(), holds(mood));
        host.folder().put("libholder.so", &holder("v2 fails"));
        host.log()
            .eventually(&[
                "ERROR",
                "libholder.so",
                "continues to serve",
                "it is told to",
            ])
            .await;
        // No request reaches the new version before that version has the state.
        assert_eq!(host.get("/holder").await.text(), holds(mood));
        if mood == "v1" {
            host.folder().put("libholder.so", &holder("v3"));
            host.serves("/holder", &holds("v3")).await;
        }
    }
}

#[tokio::test]
async fn a_new_version_knows_when_the_one_before_has_ended() {
    let holder = |mark: &str| Library::plugin("holder").marked(mark);
    let setup = Setup::new().library("libholder.so", &holder("v1 shares"));
    let host = setup.start().await;
    host.log().eventually(&["v1 shares is alone"]).await;
    let mut wire = host.wire().await;
    wire.send("GET /holder/drained HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["v1 shares waits"]).await;
    host.folder().put("libholder.so", &holder("v2 shares"));
    host.serves("/holder", "v2 shares is without, draining false")
        .await;
    assert_eq!(wire.response().await.1, "draining true");
    host.log().eventually(&["v2 shares is alone"]).await;
    let log = host.log().all().join("\n");
    let order = [
        "v1 shares says goodbye",
        "v1 shares says goodbye again",
        "v2 shares is alone",
    ];
    let places = order.map(|line| log.find(line).unwrap_or_else(|| panic!("{line}: {log}")));
    assert!(places.is_sorted(), "{log}");
}

#[tokio::test]
async fn a_library_that_is_removed_during_the_handover_is_gone() {
    let (host, ctl) = counter(&["--graceful-timeout=100ms"]).await;
    let mut connection = host.http1().await;
    let endless = tokio::spawn(async move { connection.get("/counter/later?never").await.status });
    host.log().eventually(&["v1 waits"]).await;
    host.folder().put(FILE, &library("v2"));
    let draining = |app: &serde_json::Value| app["state"] == "loading: drain";
    ctl.eventually("a drain before the handover", "counter", draining)
        .await;
    let mut wire = send_waiting_request(&host).await;
    host.folder().remove(FILE);
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(endless.await.unwrap(), 503);
    eventually("the app is gone", async || {
        ctl.app("counter").await.is_null().then_some(())
    })
    .await;
}

/// Sends a request, and asserts that the host delays the response. Returns the connection.
async fn send_waiting_request(host: &Host) -> Wire {
    let mut wire = host.wire().await;
    wire.send("GET /counter HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = timeout(Duration::from_millis(300), wire.head()).await;
    assert!(answer.is_err(), "it did not wait: {answer:?}");
    wire
}

const FILE: &str = "libcounter.so";

/// Returns the fixture `counter` with a version.
fn library(version: &str) -> Library {
    Library::plugin("counter").marked(version)
}

/// Starts a host that serves version `v1` of the fixture `counter`. Returns the host and its control socket.
async fn counter(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &library("v1")).arg(ctl.option());
    let host = args.iter().fold(setup, Setup::arg).start().await;
    host.serves("/counter/version", "v1").await;
    (host, ctl)
}
