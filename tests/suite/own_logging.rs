//! A plugin that sets up its own logging is reported, and its lines still go to the host's log.

use host_tests::{Ctl, Setup};

#[tokio::test]
async fn one_that_may_find_a_subscriber_in_place_is_warned_of() {
    let host = Setup::new().plugin("own_logging").start().await;
    let warning = host.log().eventually(&["WARN", "own_logging#1"]).await;
    for part in [
        "sets up logging of its own",
        "remove the line",
        "fmt::init()",
    ] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(host.get("/own_logging").await.status, 200);
    let lines = host.stop().await.log_of("own_logging");
    assert_eq!(lines.last().map(|line| &*line.text), Some("still here"));
}

#[tokio::test]
async fn one_that_must_be_the_first_is_told_what_to_remove() {
    let host = Setup::new()
        .plugin("own_logging")
        .env("OWN_LOGGING", "init")
        .start()
        .await;
    let error = host.log().eventually(&["ERROR", "Not loaded"]).await;
    for part in [
        "step=init",
        "own_logging/src/lib.rs:",
        "the server's is there before it",
        "remove the line",
        "fmt::init()",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("registry"), "{error}");
    assert_eq!(host.get("/own_logging").await.status, 503);
}

#[tokio::test]
async fn one_that_keeps_the_lock_of_its_tracing_holds_up_neither_control_nor_the_stop() {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("own_logging").plugin("hello");
    let host = setup.arg(ctl.option()).start().await;
    host.answers("/own_logging/", 200).await;
    assert_eq!(host.get("/own_logging/stuck").await.status, 200);
    for level in ["warn", "debug"] {
        let (code, printed) = ctl.run(&["log-level", level]).await;
        assert_eq!(code, 0, "{printed}");
        let unconfirmed = "not confirmed in time: own_logging#1";
        assert!(printed.ends_with(unconfirmed), "{printed}");
    }
    let answer = ctl.json(&["log-level", "info"]).await;
    assert_eq!(answer["unconfirmed"], serde_json::json!(["own_logging#1"]));
    assert_eq!(host.get("/").await.status, 200);
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0));
    assert!(
        exit.to_string().contains("libraries=own_logging#1"),
        "{exit}"
    );
}

#[tokio::test]
async fn one_that_panics_harms_no_other_app() {
    let setup = Setup::new().plugin("own_logging").plugin("hello");
    let host = setup.env("OWN_LOGGING", "panics").start().await;
    host.log()
        .eventually(&["ERROR", "the app's own subscriber"])
        .await;
    host.serves("/quiet", "hello world").await;
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn one_that_does_not_is_not_warned_of() {
    let ctl = Ctl::new();
    let host = Setup::new()
        .plugin("log_depth")
        .arg(ctl.option())
        .start()
        .await;
    for level in ["debug", "warn", "info"] {
        assert_eq!(ctl.run(&["log-level", level]).await.0, 0);
    }
    assert_eq!(host.get("/log_depth/spans").await.status, 200);
    let exit = host.stop().await;
    assert!(!exit.to_string().contains("logging of its own"), "{exit}");
}
