//! `--log-level` filters all lines, those of the host and those of plugins.

use host_tests::{Host, Line, Setup};

/// The lines that one request to `hello` logs, the most severe first: level and message.
const HELLO: [(&str, &str); 5] = [
    ("CRITICAL", "this is a CRITICAL message"),
    ("ERROR", "this is an ERROR message"),
    ("WARN", "this is a WARNING message"),
    ("INFO", "this is an INFO message"),
    ("DEBUG", "this is a DEBUG message"),
];

#[tokio::test]
async fn at_warning_three_of_five_lines_pass_and_nothing_else() {
    let lines = log_of_hello(&["--log-level=warning"]).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(
        messages(&lines),
        [
            "this is a WARNING message",
            "this is an ERROR message",
            "this is a CRITICAL message"
        ]
    );
}

#[tokio::test]
async fn each_level_lets_through_itself_and_worse() {
    for (level, passed) in [
        ("off", 0),
        ("critical", 1),
        ("error", 2),
        ("warn", 3),
        ("WARNING", 3),
        ("info", 4),
        ("debug", 5),
        ("trace", 5),
    ] {
        let lines = log_of_hello(&[&format!("--log-level={level}")]).await;
        let hello: Vec<_> = lines.iter().filter(|line| !line.is_host()).collect();
        let seen: Vec<_> = hello
            .iter()
            .rev()
            .map(|line| (&*line.level, &*line.text))
            .collect();
        assert_eq!(seen, HELLO[..passed], "{level}");
        assert!(
            hello
                .iter()
                .all(|line| line.source == "hello" && line.target == "hello"),
            "{level}: {hello:?}"
        );
        assert_eq!(
            lines.iter().any(Line::is_host),
            passed > 3,
            "{level}: {lines:?}"
        );
    }
}

#[tokio::test]
async fn the_usual_level_is_info() {
    assert_eq!(
        messages(&log_of_hello(&[]).await)
            .iter()
            .filter(|text| text.contains("this is"))
            .count(),
        4
    );
}

#[tokio::test]
async fn a_directive_rules_one_plugin() {
    let lines = log_of_hello(&["--log-level=off,hello=debug"]).await;
    assert_eq!(lines.len(), 5);
    let lines = log_of_hello(&["--log-level=info,hello=off"]).await;
    assert!(
        !lines.is_empty() && lines.iter().all(Line::is_host),
        "{lines:?}"
    );
}

#[tokio::test]
async fn the_level_comes_from_the_environment_too_and_a_flag_goes_before_it() {
    let count_lines = async |flags: &[&str]| {
        let setup = flags
            .iter()
            .fold(Setup::new().plugin("hello"), |setup, flag| setup.arg(flag));
        log_after_hello(setup.env("HOST_LOG_LEVEL", "critical").start().await)
            .await
            .len()
    };
    assert_eq!(count_lines(&[]).await, 1);
    assert_eq!(count_lines(&["--log-level=error"]).await, 2);
}

#[tokio::test]
async fn quiet_requests_log_nothing() {
    let host = Setup::new()
        .plugin("hello")
        .arg("--log-level=debug")
        .start()
        .await;
    assert_eq!(host.get("/quiet").await.status, 200);
    assert_eq!(host.stop().await.log_of("hello"), []);
}

#[tokio::test]
async fn tracing_and_log_both_reach_the_log() {
    for (level, passed) in [
        ("trace", 6),
        ("debug", 5),
        ("info", 4),
        ("warn", 3),
        ("error", 2),
        ("critical", 1),
    ] {
        let host = Setup::new()
            .plugin("log_macros")
            .arg(format!("--log-level=off,log_macros={level}"))
            .start()
            .await;
        assert_eq!(host.get("/log_macros/levels").await.status, 200);
        let mut expected = Vec::new();
        for source in ["tracing", "log"] {
            let levels = ["critical", "error", "warn", "info", "debug", "trace"][..passed]
                .iter()
                .rev();
            let levels = levels.filter(|level| (source, **level) != ("log", "critical"));
            expected
                .extend(levels.map(|level| (level.to_uppercase(), format!("{source} at {level}"))));
        }
        let lines = host
            .stop()
            .await
            .log_of("log_macros")
            .into_iter()
            .filter(|line| line.text.contains(" at "));
        let seen: Vec<_> = lines.map(|line| (line.level, line.text)).collect();
        assert_eq!(seen, expected, "{level}");
    }
}

#[tokio::test]
async fn a_line_has_target_and_fields_of_the_plugin() {
    let host = Setup::new().plugin("log_macros").start().await;
    assert_eq!(host.get("/log_macros/fields").await.status, 200);
    let lines = host.stop().await.log_of("log_macros");
    let line = |text: &str| {
        lines
            .iter()
            .find(|line| line.text.starts_with(text))
            .unwrap()
    };
    let tracing = line("tracing with fields");
    assert_eq!(tracing.target, "shop::cart");
    for field in ["sku=12", "price=1.5", "gone=true", r#"name="a b""#] {
        assert!(tracing.text.contains(field), "{tracing:?}");
    }
    assert_eq!(line("log with a target").target, "shop::till");
}

#[tokio::test]
async fn lines_from_init_and_from_threads_of_the_app_name_the_plugin() {
    let host = Setup::new().plugin("log_macros").start().await;
    assert_eq!(host.get("/log_macros/thread").await.status, 200);
    let texts: Vec<_> = host
        .stop()
        .await
        .log_of("log_macros")
        .into_iter()
        .map(|line| line.text)
        .collect();
    assert_eq!(texts, ["from init", "from a thread of its own"]);
}

#[tokio::test]
async fn a_line_that_threads_log_at_once_for_the_first_time_is_not_lost() {
    let host = Setup::new().plugin("log_macros").start().await;
    assert_eq!(host.get("/log_macros/race").await.status, 200);
    let log = host.stop().await.log_of("log_macros");
    for line in ["tracing one", "tracing ten", "log one", "log ten"] {
        assert_eq!(
            log.iter().filter(|other| other.text == line).count(),
            8,
            "{line}"
        );
    }
    assert_eq!(log.len(), 1 + 2 * 10 * 8);
}

#[tokio::test]
async fn what_an_app_logs_stays_in_one_line_and_colours_nothing() {
    let host = Setup::new().plugin("log_macros").start().await;
    assert_eq!(host.get("/log_macros/hostile").await.status, 200);
    let line = host.stop().await.log_of("log_macros").pop().unwrap();
    assert!(line.text.starts_with(r"first\nsecond \x1b[31m"), "{line:?}");
    assert!(line.text.contains(r"third\nfourth"), "{line:?}");
}

#[tokio::test]
async fn a_target_of_a_plugin_can_have_a_level_of_its_own() {
    let host = Setup::new()
        .plugin("log_macros")
        .arg("--log-level=info,shop::cart=off")
        .start()
        .await;
    assert_eq!(host.get("/log_macros/fields").await.status, 200);
    let targets: Vec<_> = host
        .stop()
        .await
        .log_of("log_macros")
        .into_iter()
        .map(|line| line.target)
        .collect();
    assert!(
        targets.contains(&"shop::till".to_owned()) && !targets.contains(&"shop::cart".to_owned()),
        "{targets:?}"
    );
}

#[tokio::test]
async fn a_name_is_a_target_and_with_a_sign_all_that_an_app_logs() {
    for (level, targets) in [
        ("off,log_macros=info", &["log_macros"][..]),
        (
            "off,log_macros#=info",
            &["log_macros", "shop::cart", "shop::till"],
        ),
        ("off,log-macros#=info,shop=off", &["log_macros"]),
    ] {
        let setup = Setup::new().plugin("log_macros");
        let host = setup.arg(format!("--log-level={level}")).start().await;
        assert_eq!(host.get("/log_macros/fields").await.status, 200);
        let log = host.stop().await.log();
        let seen: Vec<_> = log.iter().map(|line| &*line.target).collect();
        assert_eq!(seen, targets, "{level}");
    }
}

#[tokio::test]
async fn a_level_that_there_is_not_ends_the_start_with_2_and_the_valid_ones() {
    for level in ["loud", "hello=loud", "", "info,"] {
        let exit = Setup::new().arg(format!("--log-level={level}")).run().await;
        assert_eq!(exit.code, Some(2), "{level:?}: {exit}");
        let printed = exit.stderr.join("\n");
        for valid in [
            "trace", "debug", "info", "warn", "warning", "error", "critical", "off",
        ] {
            assert!(printed.contains(valid), "{level:?}: {printed}");
        }
        assert_eq!(exit.stdout, [""; 0]);
    }
}

/// Starts a host with `hello`, sends one request, stops the host, and returns the whole log.
async fn log_of_hello(args: &[&str]) -> Vec<Line> {
    let setup = args
        .iter()
        .fold(Setup::new().plugin("hello"), |setup, arg| setup.arg(arg));
    log_after_hello(setup.start().await).await
}

/// Sends one request to `hello`, stops the host, and returns the whole log.
async fn log_after_hello(host: Host) -> Vec<Line> {
    assert_eq!(host.get("/").await.text(), r#""hello world""#);
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    exit.log()
}

/// Returns the texts of the lines.
fn messages(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| &*line.text).collect()
}
