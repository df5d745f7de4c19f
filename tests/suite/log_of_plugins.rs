//! Logging in a plugin works without any setup by its author.

use host_tests::{Library, Setup, within};

#[tokio::test]
async fn an_event_is_one_line_also_when_tracing_makes_a_record_of_it() {
    for level in ["info", "debug"] {
        let host = Setup::new()
            .library("liblog_always.so", &Library::log_always())
            .arg(format!("--log-level={level}"))
            .start()
            .await;
        assert_eq!(host.get("/log_always").await.status, 200);
        let lines = host.stop().await.log_of("log_always");
        let texts: Vec<_> = lines.iter().map(|line| &*line.text).collect();
        let mut expected = vec![
            "an event n=1",
            "a record",
            "an event at debug",
            "an event in a loop",
            "an event in a loop",
        ];
        if level == "info" {
            expected.remove(2);
            assert_eq!(texts, expected);
        } else {
            // The first line is a warning that names the feature. The warning is not repeated.
            assert!(texts[0].contains("log-always"), "{texts:?}");
            assert_eq!(texts[1..], expected);
        }
    }
}

#[tokio::test]
async fn whether_a_record_is_wanted_depends_on_its_target() {
    let setup = Setup::new().plugin("log_macros");
    let host = setup.arg("--log-level=info,shop=debug").start().await;
    let enabled = host.get("/log_macros/enabled").await.text();
    assert_eq!(enabled, "shop::cart true, till false");
}

#[tokio::test]
async fn a_record_whose_values_log_is_logged() {
    let host = Setup::new().plugin("log_macros").start().await;
    let answer = within("an answer", host.get("/log_macros/nested")).await;
    assert_eq!(answer.status, 200);
    let line = host.log().eventually(&["from without"]).await;
    assert!(line.contains("sku=12"), "{line}");
    host.log().eventually(&["from within"]).await;
}
