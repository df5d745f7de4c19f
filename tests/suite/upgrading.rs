//! Upgrades in place: another build of the host replaces the program of the supervisor process, and keeps its process
//! id and its sockets. No request and no state of an app is lost.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use host_tests::{Connection, Ctl, Host, Setup, host_program};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};

#[tokio::test]
async fn nothing_is_lost_through_three_upgrades() {
    let (host, ctl) = start_counter().await;
    let builds = Builds::new();
    let (address, pid) = (host.address(), host.pid());
    let (done, is_done) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let is_done = is_done.clone();
        clients.spawn(async move {
            let mut answers = 0;
            while !*is_done.borrow() {
                let reply = Connection::http1(address).await.get("/counter").await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                answers += 1;
            }
            answers
        });
    }
    for number in 1..=3 {
        let build = builds.another(number);
        let (code, printed) = ctl.run(&["upgrade", build.to_str().unwrap()]).await;
        assert_eq!(code, 0, "{printed}");
        let recycled = ["INFO", "Recycled", "the host was upgraded"];
        host.log().nth_with(number - 1, &recycled).await;
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), build);
    }
    done.send(true).unwrap();
    let answers: u64 = clients.join_all().await.into_iter().sum();
    assert_eq!(host.get("/counter").await.text(), (answers + 1).to_string());
    assert_eq!(host.log().with(&["ERROR"]), [""; 0]);
    // The control socket works in the new build.
    let answer = ctl.json(&["log-level", "warn"]).await;
    assert_eq!(answer["was"], "info");
    assert_eq!(host.stop().await.code, Some(0));
    assert!(!ctl.path().exists());
}

#[tokio::test]
async fn what_cannot_take_over_changes_nothing() {
    let (host, ctl) = start_counter().await;
    let builds = Builds::new();
    let text = builds.0.path().join("text");
    fs::write(&text, "no program").unwrap();
    // A build that passes the check before the upgrade and then fails, and a build with another version of the
    // protocol.
    let host_path = host_program().display();
    let fails = builds.script("fails", &format!("{host_path} \"$@\"; exit 1"));
    let proof = r#"echo 'host can take over: {"protocol":0,"build":"old"}'"#;
    let old = builds.script("old", proof);
    let paths = [
        text,
        "/bin/false".into(),
        "/nowhere/host".into(),
        fails,
        old,
    ];
    let count = paths.len();
    for path in paths {
        let refusal = ctl.refusal(&["upgrade", path.to_str().unwrap()]).await;
        assert!(refusal.contains(path.to_str().unwrap()), "{refusal}");
        assert_eq!(host.get("/counter").await.status, 200);
    }
    let warnings = host.log().with(&["WARN", "Not upgraded"]);
    assert_eq!(warnings.len(), count, "{warnings:?}");
    assert_eq!(host.get("/counter").await.text(), (count + 1).to_string());
}

#[tokio::test]
async fn a_signal_upgrades_to_what_is_at_the_path_of_the_program() {
    let (host, _ctl) = start_counter().await;
    host.signal(Signal::USR2);
    let recycled = ["INFO", "Recycled", "the host was upgraded"];
    host.log().eventually(&recycled).await;
    assert_eq!(host.get("/counter").await.status, 200);
}

/// Starts a host with the fixture `counter`. Returns the host and its control socket.
async fn start_counter() -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("counter").arg(ctl.option());
    let host = setup.start().await;
    host.answers("/counter/version", 200).await;
    (host, ctl)
}

/// A folder for programs to upgrade to.
struct Builds(TempDir);

impl Builds {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a shell script that can be executed.
    fn script(&self, name: &str, commands: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{commands}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Copies the host's program to a new file, and returns its path.
    fn another(&self, number: usize) -> PathBuf {
        let path = self.0.path().join(format!("host-{number}"));
        fs::copy(host_program(), &path).unwrap();
        path
    }
}
