//! Properties of the whole process that a plugin changes at its start: the host restores each property and logs a
//! warning.

use std::env;

use host_tests::{Host, Library, Setup};
use rustix::process::Signal;

#[tokio::test]
async fn a_plugin_that_takes_signals_takes_none_from_the_host() {
    let host = start_marked("SIGTERM handler").await;
    wait_for_warning(&host, "SIGTERM, which has a handler of the plugin's").await;
    assert_eq!(host.stop().await.code, Some(0));

    let host = start_marked("SIGUSR1 ignored").await;
    wait_for_warning(&host, "SIGUSR1, which is ignored").await;
    host.signal(Signal::USR1);
    host.log().eventually(&["Log files reopened"]).await;

    let host = start_marked("SIGPIPE default").await;
    wait_for_warning(&host, "SIGPIPE, which has its default action").await;
    host.signal(Signal::PIPE);
    assert_eq!(host.get("/process_wide").await.status, 200);
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn the_working_directory_and_the_umask_are_put_back() {
    let host = start_marked("directory").await;
    wait_for_warning(&host, "the working directory").await;
    let here = env::current_dir().unwrap().display().to_string();
    assert_eq!(host.get("/process_wide/where").await.text(), here);

    let host = start_marked("umask").await;
    wait_for_warning(&host, "the umask").await;
    let status = host.get("/process_wide/status").await.text().to_owned();
    assert!(!status.contains("Umask:\t0777"), "{status}");
}

#[tokio::test]
async fn stderr_and_the_limits_are_put_back() {
    // The log is stderr, so the warning arrives only if the host has restored stderr.
    let host = start_marked("stderr").await;
    wait_for_warning(&host, "stderr").await;
    let host = start_marked("limit").await;
    wait_for_warning(&host, "the limit Nofile").await;
    assert_eq!(host.get("/process_wide").await.text(), "limit");
    let limits = host.get("/process_wide/limits").await.text().to_owned();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3));
    assert!(soft.is_some_and(|soft| soft != "64"), "{limits}");
}

#[tokio::test]
async fn a_start_that_changes_nothing_is_not_told() {
    let host = start_marked("unmarked").await;
    let exit = host.stop().await;
    assert!(!exit.to_string().contains("whole process"), "{exit}");
}

/// Starts a host with the fixture `process_wide`. The mark names the property that the fixture changes.
async fn start_marked(mark: &str) -> Host {
    let host = Setup::new().library(FILE, &library(mark)).start().await;
    host.serves("/process_wide", mark).await;
    host
}

fn library(mark: &str) -> Library {
    Library::plugin("process_wide").marked(mark)
}

/// Waits for the warning that the fixture changed this property.
async fn wait_for_warning(host: &Host, property: &str) {
    let parts = [
        "WARN",
        "changed a setting of the whole process",
        "process_wide",
        property,
        "put back",
    ];
    host.log().eventually(&parts).await;
}

const FILE: &str = "libprocess_wide.so";
