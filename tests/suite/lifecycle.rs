//! The life of a host: its start, its stop, and the files and connections that it leaves.

use std::{fs, net::TcpListener};

use host_tests::{Ctl, Host, Library, Setup, empty, eventually};
use hyper::Request;
use rustix::process::Signal;
use tokio::net::TcpStream;

#[tokio::test]
async fn the_bound_address_is_printed_once_and_is_all_of_stdout() {
    let host = Setup::new().plugin("hello").start().await;
    let address = host.address();
    assert_ne!(address.port(), 0);
    assert_eq!(host.get("/").await.status, 200);
    let exit = host.stop().await;
    assert_eq!(exit.stdout, [format!("Listening on http://{address}")]);
    assert_eq!(exit.log().len(), exit.stderr.len(), "all of stderr is log");
}

#[tokio::test]
async fn every_address_is_served() {
    let setup = Setup::new()
        .plugin("versioned")
        .arg("--bind=127.0.0.1:0")
        .arg("--bind=127.0.0.1:0");
    let mut host = setup.start().await;
    let addresses = host.addresses(2).await.to_vec();
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        let mut connection = host_tests::Connection::http1(address).await;
        assert_eq!(connection.get("/versioned").await.text(), "unmarked");
    }
    assert_eq!(host.stop().await.stdout.len(), 2);
}

#[tokio::test]
async fn term_and_int_stop_the_host_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let host = Setup::new().plugin("versioned").start().await;
        assert_eq!(host.get("/versioned").await.status, 200);
        host.signal(signal);
        let exit = host.exit().await;
        assert_eq!((exit.code, exit.signal), (Some(0), None), "{exit}");
        assert!(
            exit.log_of("versioned")
                .iter()
                .any(|line| line.text == "unmarked stopped"),
            "{exit}"
        );
    }
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_told_to_close() {
    let host = Setup::new().plugin("versioned").start().await;
    let file = host.folder().join("go");
    let mut http1 = host.wire().await;
    http1
        .send(format!(
            "GET /versioned/wait?{} HTTP/1.1\r\nHost: x\r\n\r\n",
            file.display()
        ))
        .await;
    let mut http2 = host.http2().await;
    let request = Request::get(format!("/versioned/wait?{}", file.display()))
        .body(empty())
        .unwrap();
    let waiting = tokio::spawn(async move {
        let reply = http2.exchange(request).await.unwrap();
        http2.closed().await;
        reply
    });
    eventually("both wait", async || {
        (host.log().with(&["waits"]).len() == 2).then_some(())
    })
    .await;

    host.signal(Signal::TERM);
    refuses_connections(&host).await;
    host.folder().create_empty("go");
    let response = http1.rest().await;
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nunmarked"),
        "{response}"
    );
    assert!(
        response.to_lowercase().contains("connection: close\r\n"),
        "{response}"
    );
    assert_eq!(waiting.await.unwrap().text(), "unmarked");
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn a_stream_in_flight_is_finished() {
    let host = Setup::new().plugin("versioned").start().await;
    let mut wire = host.wire().await;
    wire.send(format!(
        "GET /versioned/stream?{} HTTP/1.1\r\nHost: x\r\n\r\n",
        host.folder().join("go").display()
    ))
    .await;
    wire.until("+").await;
    host.signal(Signal::TERM);
    refuses_connections(&host).await;
    host.folder().create_empty("go");
    assert!(wire.rest().await.ends_with("0\r\n\r\n"));
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_stop() {
    let host = Setup::new()
        .plugin("versioned")
        .arg("--graceful-timeout=1h")
        .start()
        .await;
    let mut connections = [host.http1().await, host.http2().await];
    for connection in &mut connections {
        assert_eq!(connection.get("/versioned").await.status, 200);
    }
    let mut unused = host.wire().await;
    host.signal(Signal::TERM);
    for connection in &mut connections {
        connection.closed().await;
    }
    assert_eq!(unused.rest().await, "");
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn the_stop_says_how_many_connections_are_open() {
    // The host listens at all addresses of a host name, here 127.0.0.1 and perhaps ::1.
    let setup = Setup::new().plugin("versioned").arg("--bind=localhost:0");
    let host = setup.start().await;
    let (mut first, mut second) = (host.http1().await, host.http2().await);
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.get("/versioned").await.status, 200);
    }
    let exit = host.stop().await;
    let lines = exit.log_of("host");
    let counts = lines
        .iter()
        .filter(|line| line.text.contains("connections="));
    let counts: Vec<_> = counts.map(|line| line.text.as_str()).collect();
    assert!(
        counts.len() == 1 && counts[0].ends_with("connections=2"),
        "{counts:?}"
    );
}

#[tokio::test]
async fn requests_that_outlast_the_graceful_timeout_are_cut_off() {
    let host = Setup::new()
        .plugin("versioned")
        .arg("--graceful-timeout=200ms")
        .start()
        .await;
    let mut wires = [host.wire().await, host.wire().await];
    wires[0]
        .send("GET /versioned/wait?never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wires[1]
        .send("GET /versioned/stream?never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wires[1].until("+").await;
    host.log().eventually(&["waits"]).await;
    host.signal(Signal::TERM);
    // The first request has no response yet, and the second request only a part of its response.
    assert_eq!(wires[0].rest().await, "");
    let rest = wires[1].rest().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest:?}");
    let exit = host.exit().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let output = exit.to_string();
    assert!(output.contains("Cutting off connections"), "{output}");
}

#[tokio::test]
async fn a_second_signal_ends_the_host_at_once() {
    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::INT, Signal::INT),
        (Signal::TERM, Signal::INT),
    ] {
        let host = Setup::new()
            .plugin("versioned")
            .arg("--graceful-timeout=1h")
            .start()
            .await;
        let mut wire = host.wire().await;
        wire.send("GET /versioned/wait?never HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        host.log().eventually(&["waits"]).await;
        host.signal(first);
        refuses_connections(&host).await;
        let mut host = host;
        // The host takes a signal that comes soon after the first for the same request to stop. So repeat the signal
        // until the host ends.
        eventually("the end of the host", async || {
            host.signal(second);
            host.exit_status()
        })
        .await;
        let exit = host.exit().await;
        assert_eq!((exit.code, exit.signal), (Some(1), None), "{exit}");
        assert!(exit.to_string().contains("Stopping at once"), "{exit}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let exit = Setup::new().arg(format!("--bind={address}")).run().await;
    assert_eq!(exit.code, Some(1), "{exit}");
    assert_eq!(exit.stdout, [""; 0]);
    let lines: Vec<_> = exit
        .log()
        .into_iter()
        .filter(|line| line.level == "ERROR")
        .collect();
    assert_eq!(lines.len(), 1, "{exit}");
    assert!(lines[0].text.contains(&address.to_string()), "{exit}");
}

#[tokio::test]
async fn a_place_for_copies_that_cannot_be_made_is_exit_code_1() {
    let setup = Setup::new().library("file", &Library::new(""));
    let state = setup.folder().join("file/state");
    let exit = setup.arg("--state-dir").arg(&state).run().await;
    assert_eq!(exit.code, Some(1), "{exit}");
    assert!(
        exit.stderr
            .iter()
            .any(|line| line.contains("ERROR") && line.contains("file/state")),
        "{exit}"
    );
}

#[tokio::test]
async fn copies_of_libraries_are_private_and_gone_after_the_end() {
    let setup = Setup::new().plugin("versioned");
    let state = setup.folder().join("state");
    let host = setup.arg("--state-dir").arg(&state).start().await;
    host.serves("/versioned", "unmarked").await;
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&state).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(copies(&state).len(), 1);
    host.signal(Signal::TERM);
    eventually("the copies are gone", async || {
        copies(&state).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_host_left_behind_is_swept_up_by_the_next() {
    let state = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let setup = || Setup::new().arg("--state-dir").arg(state.path());
    let host = setup().plugin("versioned").start().await;
    host.serves("/versioned", "unmarked").await;
    host.signal(Signal::KILL);
    host.exit().await;
    assert_eq!(copies(state.path()).len(), 1);
    let _next = setup().start().await;
    eventually("the copies are gone", async || {
        copies(state.path()).is_empty().then_some(())
    })
    .await;
}

/// Waits until the host no longer listens at its address.
async fn refuses_connections(host: &Host) {
    eventually("connections are refused", async || {
        TcpStream::connect(host.address()).await.err()
    })
    .await;
}

/// Returns the copies of libraries in the state folder: the `.so` files in its subfolders.
fn copies(state: &std::path::Path) -> Vec<std::path::PathBuf> {
    let list = |folder: &std::path::Path| -> Vec<_> {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let files = list(state).into_iter().flat_map(|folder| list(&folder));
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "so"))
        .collect()
}

#[tokio::test]
async fn what_has_come_when_the_server_stops_is_answered() {
    let host = Setup::new().plugin("versioned").start().await;
    host.serves("/versioned", "unmarked").await;
    // While the host is frozen, connections with requests and a signal arrive. The host then finds all of them at the
    // same time.
    host.freeze();
    let mut wires = Vec::new();
    for _ in 0..400 {
        let mut wire = host.wire().await;
        wire.send("GET /versioned HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        wires.push(wire);
    }
    host.signal(Signal::TERM);
    host.signal(Signal::CONT);
    for mut wire in wires {
        assert_eq!(wire.response().await.1, "unmarked");
    }
    assert_eq!(host.exit().await.code, Some(0));
}

#[tokio::test]
async fn a_host_whose_threads_are_all_blocked_obeys() {
    let ctl = Ctl::new();
    let host = Setup::new()
        .plugin("moody")
        .arg(ctl.option())
        .args(&["--threads=1", "--graceful-timeout=100ms"])
        .start()
        .await;
    let mut blocked = host.wire().await;
    blocked
        .send("GET /moody/block HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["INFO", "Blocked"]).await;
    ctl.text(&["log-level", "debug"]).await;
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_host_that_cannot_start_says_why_where_it_was_started() {
    let setup = Setup::new();
    let (file, log) = (setup.folder().join("file"), setup.folder().join("log"));
    fs::write(&file, "").unwrap();
    let log = format!("--log-file={}", log.display());
    for args in [&["--log-level=off"][..], &[&log]] {
        let setup = Setup::new().args(args).env("HOST_STATE_DIR", &file);
        let exit = setup.run().await;
        assert_eq!((exit.code, &*exit.stdout), (Some(1), &[][..]), "{exit}");
        let [line] = &*exit.stderr else {
            panic!("expected one line: {exit}");
        };
        let reason = "error: cannot start: cannot keep copies of libraries: ";
        assert!(line.starts_with(reason), "{line}");
        assert!(line.contains("see --state-dir"), "{line}");
    }
}
