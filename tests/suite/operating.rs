//! Workers, as an operator handles them: `host ctl workers`, `scale` and `recycle`, signals, and systemd.

use std::{fs, os::unix::net::UnixDatagram};

use host_tests::{Connection, Ctl, Host, Library, Setup, eventually, time_limit};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

#[tokio::test]
async fn workers_are_shown_with_what_they_do_and_take() {
    let (host, ctl) = hello(&["--workers=2"]).await;
    host.answers("/", 200).await;
    let roster = wait_until_serving(&ctl, 2).await;
    assert_eq!(roster["wanted"], 2, "{roster}");
    assert_eq!(roster["died"], serde_json::json!([]));
    let workers = roster["workers"].as_array().unwrap();
    assert_ne!(workers[0]["pid"], workers[1]["pid"]);
    let mut requests = 0;
    for worker in workers {
        assert_eq!(worker["apps"], 1, "{worker}");
        assert_eq!(worker["loads"], 1, "{worker}");
        assert!(worker["loads_left"].as_u64() > Some(300), "{worker}");
        assert!(worker["memory_bytes"].as_u64() > Some(1 << 20), "{worker}");
        requests += worker["requests"].as_u64().unwrap();
    }
    assert!(requests >= 1, "{roster}");

    let text = ctl.text(&["workers"]).await;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("WORKER  PID"), "{text}");
    assert!(lines[1].contains("serving") && lines[1].contains("MiB") || lines[1].contains("KiB"));
    assert_eq!(lines.len(), 3, "{text}");
}

#[tokio::test]
async fn workers_are_shown_also_when_one_hangs_and_after_one_died() {
    let (host, ctl) = hello(&[]).await;
    host.answers("/", 200).await;
    let worker = wait_until_serving(&ctl, 1).await["workers"][0].clone();
    signal_worker(&worker, Signal::STOP);
    // The stopped worker cannot report its requests, but the system still reports its memory.
    let hung = ctl.json(&["workers"]).await["workers"][0].clone();
    assert_eq!(hung["pid"], worker["pid"]);
    assert_eq!(hung["requests"], Value::Null, "{hung}");
    assert!(hung["memory_bytes"].as_u64() > Some(1 << 20), "{hung}");

    signal_worker(&worker, Signal::KILL);
    let roster = eventually("the death", async || {
        let roster = ctl.json(&["workers"]).await;
        roster["died"][0].is_object().then_some(roster)
    })
    .await;
    let died = &roster["died"][0];
    assert_eq!(
        (&died["worker"], &died["pid"]),
        (&worker["worker"], &worker["pid"])
    );
    assert!(
        died["what"].as_str().unwrap().contains("SIGKILL"),
        "{roster}"
    );
    assert_eq!(died["plugin"], Value::Null, "nobody is to blame");
    let text = ctl.text(&["workers"]).await;
    assert!(
        text.contains("died 20") && text.contains("SIGKILL"),
        "{text}"
    );
}

#[tokio::test]
async fn workers_come_and_go_without_a_lost_request() {
    let (host, ctl) = hello(&[]).await;
    host.answers("/", 200).await;
    let address = host.address();
    let (done, is_done) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let is_done = is_done.clone();
        clients.spawn(async move {
            while !*is_done.borrow() {
                let reply = Connection::http1(address).await.get("/").await;
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        });
    }
    let scaled = ctl.json(&["scale", "3"]).await;
    assert_eq!(scaled, serde_json::json!({ "workers": 3, "was": 1 }));
    wait_until_serving(&ctl, 3).await;
    let text = ctl.text(&["scale", "1"]).await;
    assert!(text.starts_with("1 workers (3 before)"), "{text}");
    let left = wait_until_serving(&ctl, 1).await;
    assert_eq!(
        left["workers"][0]["worker"], 3,
        "the oldest go first: {left}"
    );
    done.send(true).unwrap();
    clients.join_all().await;
    assert_eq!(host.log().with(&["Worker died"]), [""; 0]);
}

#[tokio::test]
async fn signals_add_and_take_away_a_worker_but_not_the_last() {
    let (host, ctl) = hello(&[]).await;
    wait_until_serving(&ctl, 1).await;
    host.signal(Signal::TTIN);
    wait_until_serving(&ctl, 2).await;
    host.signal(Signal::TTOU);
    wait_until_serving(&ctl, 1).await;
    host.signal(Signal::TTOU);
    let line = host.log().eventually(&["WARN", "SIGTTOU"]).await;
    assert!(line.contains("expected 1 to 256"), "{line}");
    assert_eq!(host.get("/").await.status, 200);
    let refusal = ctl.refusal(&["scale", "0"]).await;
    assert!(refusal.contains("not in 1..=256"), "{refusal}");
}

#[tokio::test]
async fn a_host_of_one_process_has_one_worker_and_no_other_number() {
    let (_host, ctl) = hello(&["--workers=0"]).await;
    let roster = wait_until_serving(&ctl, 1).await;
    assert_eq!(roster["wanted"], 0, "{roster}");
    assert!(roster["workers"][0]["pid"].is_u64(), "{roster}");
    let refusal = ctl.refusal(&["scale", "2"]).await;
    assert!(refusal.contains("--workers=0"), "{refusal}");
}

#[tokio::test]
async fn one_worker_is_recycled_by_its_number() {
    let (_host, ctl) = hello(&["--workers=2"]).await;
    wait_until_serving(&ctl, 2).await;
    assert_eq!(ctl.json(&["recycle", "1"]).await["recycled"], 1);
    let roster = wait_until_serving(&ctl, 2).await;
    let number = |index: usize| roster["workers"][index]["worker"].as_u64();
    assert_eq!((number(0), number(1)), (Some(2), Some(3)), "{roster}");
    let refusal = ctl.refusal(&["recycle", "7"]).await;
    assert!(
        refusal.contains("no worker 7") && refusal.contains("2, 3"),
        "{refusal}"
    );
}

#[tokio::test]
async fn sigquit_ends_at_once_whatever_is_in_flight() {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .library("libversioned.so", &Library::version("v1"))
        .arg("--graceful-timeout=10m");
    let host = setup.arg(ctl.option()).start().await;
    host.serves("/versioned", "v1").await;
    let mut wire = host.wire().await;
    wire.send("GET /versioned/wait?never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["v1 waits"]).await;
    let worker = wait_until_serving(&ctl, 1).await["workers"][0].clone();
    host.signal(Signal::QUIT);
    let exit = host.exit().await;
    assert_eq!(exit.code, Some(1), "{exit}");
    let pid = worker["pid"].as_i64().unwrap();
    eventually("the end of the worker", async || {
        (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn systemd_is_told_when_the_server_serves_reads_and_stops() {
    let setup = Setup::new().plugin("hello");
    let path = setup.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(time_limit())).unwrap();
    let host = setup.env("NOTIFY_SOCKET", &path).start().await;
    let receive = |socket: &UnixDatagram| {
        let mut text = [0; 256];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    assert_eq!(receive(&socket).trim_end(), "READY=1");
    // READY=1 is sent after all apps have started, so the first response is not the 503 for an app that is loading.
    assert_eq!(host.get("/").await.status, 200);
    host.signal(Signal::HUP);
    let reloading = receive(&socket);
    assert!(
        reloading.starts_with("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(receive(&socket).trim_end(), "READY=1");
    host.signal(Signal::TERM);
    assert_eq!(receive(&socket).trim_end(), "STOPPING=1");
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn a_line_says_which_worker_wrote_it() {
    let setup = Setup::new().plugin("hello").arg("--log-format=json");
    let access = setup.folder().join("access");
    let setup = setup
        .arg(format!("--access-log={}", access.display()))
        .arg("--access-log-format=json");
    let host = setup.start().await;
    host.answers("/", 200).await;
    let json = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let line = host
        .log()
        .eventually(&["\"plugin\":\"hello\"", "this is an INFO"])
        .await;
    assert_eq!(json(&line)["worker"], 1, "{line}");
    let line = host.log().eventually(&["Worker started"]).await;
    assert_eq!(json(&line)["worker"], Value::Null, "{line}");
    let line = eventually("a line of the access log", async || {
        let text = fs::read_to_string(&access).unwrap();
        text.lines().next().map(str::to_owned)
    })
    .await;
    assert_eq!(json(&line)["worker"], 1, "{line}");
}

#[tokio::test]
async fn a_line_of_text_says_which_worker_wrote_it_where_there_are_several() {
    for (workers, names_worker) in [("--workers=1", false), ("--workers=2", true)] {
        let host = Setup::new()
            .library("libversioned.so", &Library::version("v1"))
            .arg(workers)
            .start()
            .await;
        host.serves("/versioned", "v1").await;
        let exit = host.stop().await;
        let lines = exit.log_of("versioned");
        assert!(!lines.is_empty(), "{exit}");
        let is_worker_named = lines.iter().all(|line| line.text.contains(" worker="));
        assert_eq!(is_worker_named, names_worker, "{exit}");
    }
}

/// Starts a host with the plugin `hello`. Returns the host and its control socket.
async fn hello(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("hello").args(args);
    let host = setup.arg(ctl.option()).start().await;
    (host, ctl)
}

/// Waits until exactly `count` workers run and each serves its one app. Returns the output of `host ctl workers`.
async fn wait_until_serving(ctl: &Ctl, count: usize) -> Value {
    let what = format!("{count} workers that serve");
    eventually(&what, async || {
        let roster = ctl.json(&["workers"]).await;
        let workers = roster["workers"].as_array()?;
        let serves = |worker: &Value| worker["state"] == "serving" && worker["apps"] == 1;
        (workers.len() == count && workers.iter().all(serves)).then_some(roster)
    })
    .await
}

/// Sends a signal to the process of a worker, which is an entry of `host ctl workers`.
fn signal_worker(worker: &Value, signal: Signal) {
    let pid = worker["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
