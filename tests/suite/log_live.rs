//! The log level changes while the host runs. A change applies to the host and to every generation at once.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, SystemTime},
};

use host_tests::{Ctl, Host, Library, Setup, eventually};
use rustix::process::Signal;
use serde_json::Value;

#[tokio::test]
async fn ctl_shows_and_changes_the_level() {
    let ctl = Ctl::new();
    let host = Setup::new().plugin("hello").arg(ctl.option()).start().await;
    assert_eq!(ctl.run(&["log-level"]).await, (0, "info".to_owned()));
    assert_eq!(
        ctl.run(&["log-level", "warn,hello=debug"]).await,
        (0, "warn,hello=debug (was info)".to_owned())
    );
    let (_, json) = ctl.run(&["log-level", "--json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap()["level"],
        "warn,hello=debug"
    );
    assert_eq!(host.get("/").await.status, 200);
    assert_eq!(ctl.run(&["log-level", "off"]).await.0, 0);
    assert_eq!(host.get("/").await.status, 200);
    assert_eq!(ctl.run(&["log-level", "error"]).await.0, 0);
    let exit = host.stop().await;
    assert_eq!(exit.log_of("hello").len(), 5, "{exit}");
    // The line about a change has a level that passes the filter: the old filter if possible, otherwise the new filter.
    let changes: Vec<_> = exit
        .log_of("host")
        .into_iter()
        .filter(|line| line.text.contains("changed"))
        .collect();
    let levels: Vec<_> = changes.iter().map(|line| &*line.level).collect();
    assert_eq!(levels, ["INFO", "WARN", "ERROR"], "{exit}");
    assert!(
        changes[0]
            .text
            .contains(r#"was=info is="warn,hello=debug" by=ctl"#),
        "{exit}"
    );
}

#[tokio::test]
async fn a_level_for_a_time_ends_with_it() {
    let ctl = Ctl::new();
    let host = Setup::new().arg(ctl.option()).start().await;
    let (code, printed) = ctl.run(&["log-level", "debug", "--for", "300ms"]).await;
    assert_eq!(code, 0);
    assert!(
        printed.starts_with("debug until ") && printed.ends_with(", then info (was info)"),
        "{printed}"
    );
    host.log()
        .eventually(&["was=debug is=info", "the end of its time"])
        .await;
    assert_eq!(ctl.run(&["log-level"]).await, (0, "info".to_owned()));
    // A permanent change during a temporary one stays.
    assert_eq!(ctl.run(&["log-level", "debug", "--for", "1s"]).await.0, 0);
    assert_eq!(ctl.run(&["log-level", "warn"]).await.0, 0);
    assert_eq!(ctl.run(&["log-level"]).await, (0, "warn".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let ctl = Ctl::new();
    let _host = Setup::new().arg(ctl.option()).start().await;
    let (code, printed) = ctl.run(&["log-level", "loud"]).await;
    assert_eq!(code, 2);
    assert!(printed.contains("expected trace, debug, info"), "{printed}");
    let socket = ctl.path();
    for (request, status, part) in [
        ("GET /nothing", 404, "expected /log-level"),
        ("DELETE /log-level", 405, "GET, PUT"),
        ("PUT /log-level", 400, "body"),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_control_socket_is_private_and_needs_a_free_place() {
    use std::os::unix::fs::PermissionsExt;

    let ctl = Ctl::new();
    let _host = Setup::new().arg(ctl.option()).start().await;
    let socket = ctl.path();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Setup::new().arg(ctl.option()).run().await;
    assert_eq!(second.code, Some(1), "{second}");
    assert!(
        second.to_string().contains("another process does"),
        "{second}"
    );
    assert_eq!(ctl.run(&["log-level"]).await.0, 0);

    let ctl = Ctl::new();
    drop(std::os::unix::net::UnixListener::bind(ctl.path()).unwrap());
    let host = Setup::new().arg(ctl.option()).start().await;
    assert_eq!(ctl.run(&["log-level"]).await.0, 0);
    assert_eq!(host.stop().await.code, Some(0));

    let ctl = Ctl::new();
    std::fs::write(ctl.path(), "mine").unwrap();
    let exit = Setup::new().arg(ctl.option()).run().await;
    assert_eq!(exit.code, Some(1), "{exit}");
    assert!(exit.to_string().contains("is not a socket"), "{exit}");
}

#[tokio::test]
async fn sighup_reads_the_level_again_and_keeps_it_when_it_is_wrong() {
    let ctl = Ctl::new();
    let setup = Setup::new().arg(ctl.option());
    let file = setup.folder().join("host.toml");
    std::fs::write(&file, "log-level = 'info'").unwrap();
    let host = setup.arg("--config").arg(&file).start().await;
    let wait_for_level = async |expected: &str| {
        eventually(expected, async || {
            (ctl.run(&["log-level"]).await.1 == expected).then_some(())
        })
        .await;
    };
    wait_for_level("info").await;
    let more = "log-level = 'debug'\nthreads = 7\nlog-file = 'log'";
    std::fs::write(&file, more).unwrap();
    host.signal(Signal::HUP);
    wait_for_level("debug").await;
    host.log()
        .eventually(&["take effect at the next start", "settings=log-file,threads"])
        .await;
    host.log()
        .eventually(&["was=info is=debug", "by=SIGHUP"])
        .await;
    std::fs::write(&file, "log-level = 'loud'").unwrap();
    host.signal(Signal::HUP);
    host.log()
        .eventually(&["ERROR", "not reloaded", "is not a log level"])
        .await;
    wait_for_level("debug").await;
}

#[tokio::test]
async fn each_of_1000_flips_counts_from_its_answer_on() {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .plugin("log_depth")
        .arg(ctl.option())
        .arg("--log-format=json");
    let host = setup.arg("--log-level=error,host=info").start().await;
    assert_eq!(host.get("/log_depth/chatter").await.status, 200);
    // The threads of the old generation still log, as the threads of a generation that drains do.
    let next = Library::plugin("log_depth").with_fact("version", "9");
    host.folder().put("liblog_depth.so", &next);
    host.log().eventually(&["Loaded", "\"generation\":2"]).await;
    assert_eq!(host.get("/log_depth/chatter").await.status, 200);

    let levels = ["error", "debug", "warn", "info"];
    let mut control = BufReader::new(UnixStream::connect(ctl.path()).unwrap());
    // Each window is a level, and the times between which the level was certainly in force.
    let mut windows = Vec::new();
    for flip in 0..1000 {
        let level = levels[flip % levels.len()];
        set_level(&mut control, level);
        let from = SystemTime::now();
        std::thread::sleep(Duration::from_millis(2));
        windows.push((level, from, SystemTime::now()));
    }
    let checked = check_rounds(&host, &windows);
    assert!(checked > 1000, "only {checked} rounds could be checked");
}

/// Changes the level over the control socket, and reads the response. The change is then complete.
fn set_level(control: &mut BufReader<UnixStream>, level: &str) {
    let body = format!("{{\"level\":\"{level}\"}}");
    let len = body.len();
    let request =
        format!("PUT /log-level HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{body}");
    control.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    while !line.starts_with('{') {
        line.clear();
        assert!(control.read_line(&mut line).unwrap() > 0);
    }
    assert!(line.contains(&format!("\"level\":\"{level}\"")), "{line}");
}

/// Checks the rounds of lines that threads of the app have logged. A round that lies completely within a window must
/// consist of exactly the lines that pass the level of the window. Returns the number of checked rounds.
fn check_rounds(host: &Host, windows: &[(&str, SystemTime, SystemTime)]) -> usize {
    // Generation, thread and number of the round → time of its first line, and its lines.
    let mut rounds: BTreeMap<(u64, u64, u64), (SystemTime, Vec<String>)> = BTreeMap::new();
    for line in host.log().with(&["chatter\"", "\"worker\""]) {
        let line: Value = serde_json::from_str(&line).unwrap();
        let time = humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        let fields = &line["fields"];
        let key = (
            number(&line["generation"]),
            number(&fields["worker"]),
            number(&fields["round"]),
        );
        let text = format!(
            "{} {}",
            line["message"].as_str().unwrap(),
            line["level"].as_str().unwrap()
        );
        rounds
            .entry(key)
            .or_insert_with(|| (time, Vec::new()))
            .1
            .push(text);
    }
    let rank = |level: &str| {
        ["error", "warn", "info", "debug"]
            .iter()
            .position(|other| *other == level)
            .unwrap()
    };
    let mut checked = 0;
    for (&(generation, worker, round), (began, texts)) in &rounds {
        // The round ends before the next round of the same thread begins.
        let Some((end, _)) = rounds.get(&(generation, worker, round + 1)) else {
            continue;
        };
        let within = |&&(_, from, to): &&(&str, SystemTime, SystemTime)| *began > from && *end < to;
        let Some((level, ..)) = windows.iter().find(within) else {
            continue;
        };
        let all = [
            ("chatter", "error"),
            ("chatter", "warn"),
            ("chatter", "info"),
            ("chatter", "debug"),
            ("log chatter", "warn"),
            ("log chatter", "debug"),
        ];
        let expected = all
            .iter()
            .filter(|(_, line_level)| rank(line_level) <= rank(level));
        let expected: Vec<_> = expected
            .map(|(message, line_level)| format!("{message} {line_level}"))
            .collect();
        assert_eq!(
            *texts, expected,
            "at {level}, generation {generation}, worker {worker}, round {round}"
        );
        checked += 1;
    }
    checked
}
