//! Signals that arrive before the host is ready for them or shortly after each other, and the end of a process that has
//! loaded libraries with exit handlers.

use std::fs::{self, OpenOptions};

use host_tests::{Host, Library, Setup, eventually};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use tokio::task;

#[tokio::test]
async fn a_signal_that_comes_before_the_configuration_is_read_is_obeyed_later() {
    for (signal, line) in [
        (Signal::HUP, "Configuration reloaded"),
        (Signal::USR1, "Log files reopened"),
        (Signal::USR2, "Not upgraded"),
    ] {
        let setup = Setup::new();
        let file = setup.folder().join("host.toml");
        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut host = setup.arg("--config").arg(&file).spawn();
        let pipe = {
            let file = file.clone();
            task::spawn_blocking(move || OpenOptions::new().write(true).open(file))
        };
        // Opening the pipe for writing returns when the host has opened it for reading, so the host now waits for its
        // configuration.
        let pipe = pipe.await.unwrap().unwrap();
        host.signal(signal);
        drop(pipe);
        host.wait_listening(1).await;
        if signal == Signal::HUP {
            task::spawn_blocking(move || fs::write(file, ""))
                .await
                .unwrap()
                .unwrap();
        }
        host.log().eventually(&[line]).await;
        assert_eq!(host.stop().await.code, Some(0));
    }
}

#[tokio::test]
async fn a_stop_is_heard_while_plugins_start() {
    let setup = Setup::new().library("libinit_hangs.so", &Library::plugin("init_hangs"));
    let host = setup.arg("--ready-timeout=1h").start().await;
    host.log().eventually(&["hangs: "]).await;
    let exit = host.stop().await;
    assert_eq!((exit.code, exit.signal), (Some(0), None), "{exit}");
}

#[tokio::test]
async fn one_stop_that_arrives_as_two_signals_is_a_graceful_one() {
    let host = Setup::new().plugin("versioned").start().await;
    let file = host.folder().join("go");
    let mut wire = host.wire().await;
    wire.send(format!(
        "GET /versioned/wait?{} HTTP/1.1\r\nHost: x\r\n\r\n",
        file.display()
    ))
    .await;
    host.log().eventually(&["waits"]).await;
    host.freeze();
    host.signal(Signal::TERM);
    host.signal(Signal::INT);
    host.signal(Signal::CONT);
    host.log().eventually(&["Stopping, a second signal"]).await;
    host.folder().create_empty("go");
    assert!(wire.rest().await.ends_with("unmarked"));
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn exit_handlers_of_libraries_do_not_run() {
    for mark in ["hanging exit handler", "crashing exit handler"] {
        let host = start_with_exit_handler(mark).await;
        let exit = host.stop().await;
        assert_eq!((exit.code, exit.signal), (Some(0), None), "{mark}: {exit}");

        let mut host = start_with_exit_handler(mark).await;
        let mut wire = host.wire().await;
        wire.send("GET /versioned/wait?never HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        host.log().eventually(&["waits"]).await;
        eventually("the end of the host", async || {
            host.signal(Signal::TERM);
            host.exit_status()
        })
        .await;
        let exit = host.exit().await;
        assert_eq!((exit.code, exit.signal), (Some(1), None), "{mark}: {exit}");
    }
}

/// Starts a host with `versioned`, and with a library that registers an exit handler. The mark says what the handler
/// does.
async fn start_with_exit_handler(mark: &str) -> Host {
    let library = Library::plugin("process_wide").marked(mark);
    let setup = Setup::new().plugin("versioned");
    let host = setup.library("libprocess_wide.so", &library).start().await;
    host.serves("/process_wide", mark).await;
    host
}
