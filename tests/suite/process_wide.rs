//! Properties of the whole process that a plugin changes: the host puts them back and says so.

use std::env;

use host_tests::{Host, Library, Setup};
use rustix::process::Signal;

#[tokio::test]
async fn a_plugin_that_takes_signals_takes_none_from_the_host() {
    let host = with("SIGTERM handler").await;
    told(&host, "SIGTERM, which has a handler of the plugin's").await;
    assert_eq!(host.stop().await.code, Some(0));

    let host = with("SIGUSR1 ignored").await;
    told(&host, "SIGUSR1, which is ignored").await;
    host.signal(Signal::USR1);
    host.log().eventually(&["Log files opened anew"]).await;

    let host = with("SIGPIPE default").await;
    told(&host, "SIGPIPE, which has its default action").await;
    host.signal(Signal::PIPE);
    assert_eq!(host.get("/process_wide").await.status, 200);
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn the_working_directory_and_the_umask_are_put_back() {
    let host = with("directory").await;
    told(&host, "the working directory").await;
    let here = env::current_dir().unwrap().display().to_string();
    assert_eq!(host.get("/process_wide/where").await.text(), here);

    let host = with("umask").await;
    told(&host, "the umask").await;
    let status = host.get("/process_wide/status").await.text().to_owned();
    assert!(!status.contains("Umask:\t0777"), "{status}");
}

#[tokio::test]
async fn stderr_and_the_limits_are_put_back() {
    // If the host did not put stderr back, the log would end.
    let host = with("stderr").await;
    told(&host, "stderr").await;
    let host = with("limit").await;
    told(&host, "the limit Nofile").await;
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
    let host = with("unmarked").await;
    let exit = host.stop().await;
    assert!(!exit.to_string().contains("whole process"), "{exit}");
}

async fn with(mark: &str) -> Host {
    let host = Setup::new().library(FILE, &library(mark)).start().await;
    host.serves("/process_wide", mark).await;
    host
}

fn library(mark: &str) -> Library {
    Library::plugin("process_wide").marked(mark)
}

async fn told(host: &Host, what: &str) {
    let parts = [
        "WARN",
        "changed what belongs to the whole process",
        "process_wide",
        what,
        "put back",
    ];
    host.log().eventually(&parts).await;
}

const FILE: &str = "libprocess_wide.so";
