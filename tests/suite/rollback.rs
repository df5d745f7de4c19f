//! Rollbacks to the previous version: by an operator, or automatic when the new version fails during its probation.

use std::time::Duration;

use host_tests::{Ctl, Library, Setup, eventually};
use tokio::time::timeout;

use crate::moody::{FILE, library, moody};

#[tokio::test]
async fn an_operator_goes_back_to_the_library_before() {
    let (host, ctl) = moody(&[]).await;
    assert!(
        ctl.refusal(&["rollback", "moody"])
            .await
            .contains("no other library")
    );
    host.folder().put(FILE, &library("v2"));
    host.serves("/moody", "v2").await;

    let proof = ctl.json(&["rollback", "moody"]).await;
    assert_eq!(
        (&proof["old_generation"], &proof["new_generation"]),
        (&2.into(), &3.into())
    );
    assert_eq!(host.get("/moody").await.text(), "v1");
    host.log()
        .eventually(&["INFO", "Rolled back", "generation=3", "replaces=2"])
        .await;

    // A version that was rolled back is not loaded again when its file is written again with the same content. A file
    // with new content is loaded.
    host.folder().put(FILE, &library("v2"));
    host.log()
        .eventually(&["INFO", "rolled back, not loaded again"])
        .await;
    assert_eq!(host.get("/moody").await.text(), "v1");
    host.folder().put(FILE, &library("v3"));
    host.serves("/moody", "v3").await;
}

#[tokio::test]
async fn what_has_no_end_leaves_the_version_that_is_kept_until_that_is_back() {
    let (host, _ctl) = moody(&["--auto-rollback"]).await;
    let endless = async || {
        let mut wire = host.wire().await;
        wire.send("GET /moody/drained HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        wire
    };
    let mut first = endless().await;
    host.log().eventually(&["moody#1", "Waits"]).await;
    host.folder().put(FILE, &library("v2 fails"));
    assert_eq!(first.response().await.1, "v1");

    eventually("the version before is back", async || {
        (host.get("/moody").await.text() == "v1").then_some(())
    })
    .await;
    let mut second = endless().await;
    host.log().nth_with(1, &["moody#1", "Waits"]).await;
    let end = timeout(Duration::from_millis(300), second.head()).await;
    assert!(end.is_err(), "it was told to end: {end:?}");
    host.folder().put(FILE, &library("v3"));
    assert_eq!(second.response().await.1, "v1");
}

#[tokio::test]
async fn a_new_version_that_fails_is_replaced_by_the_one_before_which_still_runs() {
    for mood in ["fails", "panics"] {
        let (host, ctl) = moody(&["--auto-rollback"]).await;
        let bad = format!("v2 {mood}");
        host.folder().put(FILE, &library(&bad));
        host.answers("/moody", 500).await;
        let app = ctl.app("moody").await;
        assert_eq!(
            (&app["state"], &app["others"][0]["state"]),
            (&"probation".into(), &"kept".into())
        );

        eventually("the version before is back", async || {
            (host.get("/moody").await.text() == "v1").then_some(())
        })
        .await;
        let line = host
            .log()
            .eventually(&["ERROR", FILE, "rolling back"])
            .await;
        assert!(
            line.contains("generation=2") && line.contains("back=1"),
            "{line}"
        );
        let app = ctl.app("moody").await;
        assert_eq!(
            (&app["state"], &app["serving"]["generation"]),
            (&"serving".into(), &1.into())
        );
        assert_eq!(app["last_error"]["step"], "probation");

        host.folder().put(FILE, &library(&bad));
        host.log()
            .eventually(&["INFO", "rolled back, not loaded again"])
            .await;
        host.folder().put(FILE, &library("v3"));
        host.serves("/moody", "v3").await;
    }
}

#[tokio::test]
async fn a_new_version_that_is_no_worse_passes_and_the_one_before_ends() {
    let (host, ctl) = moody(&["--auto-rollback", "--probation=300ms"]).await;
    host.folder().put(FILE, &library("v2"));
    host.serves("/moody", "v2").await;
    host.log()
        .eventually(&["INFO", "Passed its probation", "generation=2"])
        .await;
    host.log()
        .eventually(&["INFO", "Stopped", "generation=1"])
        .await;
    assert_eq!(ctl.app("moody").await["state"], "serving");
}

#[tokio::test]
async fn a_version_that_fails_as_the_one_before_did_stays() {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .library(FILE, &library("v1 fails"))
        .arg(ctl.option());
    let host = setup
        .arg("--auto-rollback")
        .arg("--probation=500ms")
        .start()
        .await;
    for _ in 0..10 {
        host.answers("/moody", 500).await;
    }
    host.folder().put(FILE, &library("v2 fails"));
    host.log()
        .eventually(&["INFO", "Loaded", "generation=2"])
        .await;
    for _ in 0..10 {
        assert_eq!(host.get("/moody").await.status, 500);
    }
    host.log()
        .eventually(&["INFO", "Passed its probation", "generation=2"])
        .await;
}

#[tokio::test]
async fn nothing_goes_back_to_a_version_that_was_turned_off() {
    let ctl = Ctl::new();
    let host = Setup::new()
        .library(FILE, &library("v1 panics"))
        .arg(ctl.option())
        .args(&["--auto-rollback", "--probation=500ms", "--panic-limit=6"])
        .start()
        .await;
    // Many good requests first, so that the six panics are a small part of all requests.
    for _ in 0..100 {
        assert_eq!(host.get("/moody/facts").await.status, 200);
    }
    for _ in 0..6 {
        assert_eq!(host.get("/moody").await.status, 500);
    }
    host.answers("/moody/facts", 503).await;
    host.folder().put(FILE, &library("v2 fails"));
    host.answers("/moody/facts", 200).await;
    for _ in 0..10 {
        assert_eq!(host.get("/moody").await.status, 500);
    }
    host.log()
        .eventually(&["INFO", "Passed its probation", "generation=2"])
        .await;
    assert_eq!(host.get("/moody/facts").await.status, 200);
}

#[tokio::test]
async fn without_the_option_a_new_version_that_fails_stays() {
    let (host, ctl) = moody(&["--probation=1ms"]).await;
    host.folder().put(FILE, &library("v2 fails"));
    for _ in 0..20 {
        host.answers("/moody", 500).await;
    }
    let app = ctl.app("moody").await;
    assert_eq!(
        (&app["state"], &app["serving"]["generation"]),
        (&"serving".into(), &2.into())
    );
    assert!(app["serving"]["errors"].as_u64() >= Some(20));
}

#[tokio::test]
async fn after_a_handover_the_version_before_starts_again_with_the_state_of_now() {
    let ctl = Ctl::new();
    let counter = |mark: &str| Library::plugin("counter").marked(mark);
    let setup = Setup::new()
        .library("libcounter.so", &counter("v1"))
        .arg(ctl.option());
    let host = setup.arg("--auto-rollback").start().await;
    host.serves("/counter", "1").await;
    host.folder().put("libcounter.so", &counter("v2"));
    host.serves("/counter/version", "v2").await;
    assert_eq!(host.get("/counter").await.text(), "2");
    ctl.json(&["rollback", "counter"]).await;
    assert_eq!(host.get("/counter/version").await.text(), "v1");
    assert_eq!(host.get("/counter").await.text(), "3");

    // The automatic rollback does the same.
    host.folder().put("libcounter.so", &counter("v3 errs"));
    host.serves("/counter/version", "v3 errs").await;
    eventually("the version before is back", async || {
        (host.get("/counter").await.text() == "4").then_some(())
    })
    .await;
    assert_eq!(host.get("/counter/version").await.text(), "v1");
}
