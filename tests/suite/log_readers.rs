//! Readers of the log that stop reading or close their end, and logs that go to stdout and stderr. The host never waits
//! for a reader, and reports the number of lost lines.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use host_tests::{Ctl, Host, Line, Lines, Setup, eventually};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat},
    pipe::{PipeFlags, pipe_with},
    process::Signal,
};
use serde_json::Value;

/// A request that logs more lines than a pipe holds.
const FLOOD: &str = "/log_depth/flood/2/500";

/// Returns the reading and the writing end of a pipe.
fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// Creates a named pipe.
fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

async fn request_flood(host: &Host) {
    assert_eq!(host.get(FLOOD).await.status, 200);
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_control_nor_the_stop() {
    let ctl = Ctl::new();
    let (reader, stderr) = pipe();
    let setup = Setup::new().plugin("log_depth").arg(ctl.option());
    let host = setup.stderr(stderr).start().await;
    host.answers("/log_depth/gated", 200).await;
    request_flood(&host).await;
    for level in ["debug", "trace", "info"] {
        assert_eq!(ctl.run(&["log-level", level]).await.0, 0);
        host.signal(Signal::USR1);
        request_flood(&host).await;
    }
    let began = Instant::now();
    assert_eq!(host.stop().await.code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(4));

    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert!(text.len() > 60_000 && text.ends_with('\n'));
    text.lines().for_each(|line| drop(Line::parse(line)));
}

#[tokio::test]
async fn lines_that_were_lost_are_counted_when_somebody_reads_on() {
    let (reader, stderr) = pipe();
    let setup = Setup::new()
        .plugin("log_depth")
        .arg("--log-level=error,log_depth=info");
    let host = setup.stderr(stderr).start().await;
    host.answers("/log_depth/gated", 200).await;
    request_flood(&host).await;
    request_flood(&host).await;
    let log = Lines::of(File::from(reader));
    let line = log
        .eventually(&["Lines of the log could not be written"])
        .await;
    let (_, lost) = line.split_once("lines=").unwrap();
    let lost: usize = lost.split(' ').next().unwrap().parse().unwrap();
    assert!(
        line.contains(" ERROR    host::") && line.contains("file=stderr"),
        "{line}"
    );
    assert_eq!(log.with(&["flood with"]).len() + lost, 2000);
    request_flood(&host).await;
    assert_eq!(host.stop().await.code, Some(0));
    log.closed().await;
    assert_eq!(log.with(&["flood with"]).len() + lost, 3000);
}

#[tokio::test]
async fn the_log_tells_that_the_access_log_cannot_be_written() {
    for is_gone in [true, false] {
        let (reader, stdout) = pipe();
        // A pipe holds one line of this length, but not two.
        let format = format!("--access-log-format=%(s)s {}", "x".repeat(60_000));
        let level = "--log-level=error,host::server=info";
        let setup = Setup::new()
            .plugin("hello")
            .args(&["--access-log=-", &format, level]);
        let reader = (!is_gone).then_some(reader);
        let host = setup.stdout(stdout).start().await;
        host.log().eventually(&["Listening"]).await;
        for _ in 0..3 {
            assert_eq!(host.get("/quiet").await.status, 200);
        }
        let error = if is_gone {
            "Broken pipe"
        } else {
            "nobody reads it"
        };
        let parts = [
            "ERROR",
            "Lines of the access log cannot",
            "file=stdout",
            error,
        ];
        host.log().eventually(&parts).await;
        let exit = host.stop().await;
        let lines = if is_gone { "lines=3" } else { "lines=2" };
        let reports = exit
            .log()
            .into_iter()
            .filter(|line| line.text.contains("access log"));
        let reports: Vec<_> = reports.map(|line| line.text).collect();
        assert_eq!(reports.len(), 2, "{exit}");
        assert!(reports[1].contains(lines), "{exit}");
        drop(reader);
    }
}

#[tokio::test]
async fn a_log_on_a_full_disk_is_told_on_stderr_once_and_at_the_stop() {
    for level in ["info", "error", "critical"] {
        let setup = Setup::new().plugin("hello").arg("--log-file=/dev/full");
        let host = setup.arg(format!("--log-level={level}")).start().await;
        host.answers("/", 200).await;
        let parts = [
            "cannot be written",
            "file=/dev/full",
            "No space left on device",
        ];
        host.log().eventually(&parts).await;
        let exit = host.stop().await;
        // The supervisor and the worker each report their own lost lines.
        let count = exit.log().len();
        assert!((2..=4).contains(&count), "{exit}");
        assert!(
            exit.stderr[count - 1].contains("could not be written"),
            "{exit}"
        );
        assert!(exit.log().iter().all(Line::is_host), "{exit}");
    }
}

#[tokio::test]
async fn a_fifo_that_nobody_reads_holds_up_neither_the_start_nor_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (log, access) = (folder.path().join("log"), folder.path().join("access"));
    fifo(&log);
    fifo(&access);
    let ctl = Ctl::new();
    let setup = Setup::new().plugin("hello").arg(ctl.option());
    let setup = setup
        .arg("--log-file")
        .arg(&log)
        .arg("--access-log")
        .arg(&access);
    let host = setup.start().await;
    assert_eq!(host.get("/").await.status, 200);
    host.signal(Signal::USR1);
    assert_eq!(ctl.run(&["log-level"]).await.0, 0);
    let lines = Lines::of(File::open(&log).unwrap());
    lines.eventually(&["Log files reopened"]).await;
    lines.eventually(&["this is an INFO message"]).await;
    let mut line = String::new();
    let mut access = BufReader::new(File::open(&access).unwrap());
    access.read_line(&mut line).unwrap();
    assert!(line.contains("GET / HTTP/1.1"), "{line}");
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_stderr_that_does_not_block_loses_no_line() {
    let (reader, stderr) = pipe();
    fcntl_setfl(&stderr, fcntl_getfl(&stderr).unwrap() | OFlags::NONBLOCK).unwrap();
    let host = Setup::new()
        .plugin("log_depth")
        .stderr(stderr)
        .start()
        .await;
    host.answers("/log_depth/gated", 200).await;
    let reads = thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(File::from(reader)).lines() {
            lines.push(line.unwrap());
            if lines.len() % 100 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        lines
    });
    request_flood(&host).await;
    assert_eq!(host.stop().await.code, Some(0));
    let lines = reads.join().unwrap();
    let flood = lines.iter().filter(|line| line.contains("flood with"));
    assert_eq!(flood.count(), 1000);
}

#[tokio::test]
async fn prints_into_a_pipe_whose_reader_is_gone_harm_no_app() {
    for workers in ["0", "1"] {
        assert_prints_harm_no_app(workers).await;
    }
}

/// Starts a host whose stdout and stderr are pipes, closes their readers one after the other, and asserts that an app
/// that prints is not affected.
async fn assert_prints_harm_no_app(workers: &str) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let ((stdout, out), (stderr, err)) = (pipe(), pipe());
    let setup = Setup::new()
        .plugin("log_depth")
        .arg("--log-file")
        .arg(log.path());
    let setup = setup.arg(format!("--workers={workers}"));
    let mut host = setup.stdout(out).stderr(err).spawn();
    let text = || fs::read_to_string(log.path()).unwrap();
    let address = eventually("the address", async || {
        let text = text();
        let (_, address) = text.split_once("url=http://")?;
        address.split_once('\n')?.0.parse().ok()
    })
    .await;
    host.set_address(address);
    host.answers("/log_depth/print", 200).await;
    for (name, reader) in [("stdout", stdout), ("stderr", stderr)] {
        drop(reader);
        // Without workers, the host replaces its own stream. With workers, the supervisor writes the lines that the
        // workers print, and logs that it cannot.
        let message = match workers {
            "0" => format!("from now on stream={name}"),
            _ => format!(
                "Lines of the output of apps cannot be written, and are lost until they can be file={name}"
            ),
        };
        let is_logged = async || {
            if workers == "1" {
                assert_eq!(host.get("/log_depth/print").await.status, 200);
            }
            text().contains(&message).then_some(())
        };
        eventually(&message, is_logged).await;
    }
    let mut connection = host.http1().await;
    for _ in 0..110 {
        assert_eq!(connection.get("/log_depth/print").await.status, 200);
    }
    assert!(!text().contains("panicked"), "{}", text());
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_path_of_a_stream_is_the_stream_for_both_logs() {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    for (log, access) in [
        ("-", "-"),
        ("/dev/stderr", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/fd/1"),
    ] {
        // The files are opened without O_APPEND. If a log opened the file a second time, with its own offset, it would
        // overwrite lines.
        let setup = Setup::new()
            .plugin("log_depth")
            .arg("--access-log")
            .arg(access);
        let setup = setup.arg("--log-file").arg(log).arg("--bind=127.0.0.1:0");
        let setup = setup
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap());
        let mut host = setup.spawn();
        let address = eventually("the address", async || {
            let text = fs::read_to_string(&err).unwrap();
            let (_, address) = text.split_once("url=http://")?;
            address.split_once('\n')?.0.parse().ok()
        })
        .await;
        host.set_address(address);
        host.answers("/log_depth/gated", 200).await;
        assert_eq!(host.get("/log_depth/print").await.status, 200);
        assert_eq!(host.get("/log_depth/gated").await.status, 200);
        assert_eq!(host.stop().await.code, Some(0));
        let (out, err) = (
            fs::read_to_string(&out).unwrap(),
            fs::read_to_string(&err).unwrap(),
        );
        for part in ["printed\n", "GET /log_depth/print", "GET /log_depth/gated"] {
            assert!(out.contains(part), "{log}: {out}");
        }
        for part in ["printed to stderr\n", "Listening", "Loaded", "Stopped"] {
            assert!(err.contains(part), "{log}: {err}");
        }
    }
}

#[tokio::test]
async fn a_stream_can_be_a_socket_as_under_systemd() {
    let (reader, stdout) = UnixStream::pair().unwrap();
    let setup = Setup::new().plugin("hello").arg("--log-file=/dev/stdout");
    let host = setup
        .arg("--access-log=/dev/stdout")
        .stderr(OwnedFd::from(stdout.try_clone().unwrap()))
        .stdout(OwnedFd::from(stdout));
    let mut host = host.spawn();
    let lines = Lines::of(reader);
    let line = lines.eventually(&["Listening", "url="]).await;
    let (_, address) = line.split_once("http://").unwrap();
    host.set_address(address.parse().unwrap());
    host.answers("/", 200).await;
    lines.eventually(&["GET / HTTP/1.1"]).await;
    assert_eq!(host.stop().await.code, Some(0));
    lines.eventually(&["Stopped"]).await;
}

#[tokio::test]
async fn stdout_has_nothing_but_the_access_log() {
    let args = [
        "--access-log=-",
        "--access-log-format=json",
        "--log-format=json",
    ];
    let setup = Setup::new().plugin("hello").plugin("log_depth");
    let host = setup.args(&args).start().await;
    host.answers("/", 200).await;
    host.answers("/log_depth/gated", 200).await;
    assert_eq!(host.get("/log_depth/print").await.status, 200);
    let address = host.address();
    let exit = host.stop().await;
    for line in &exit.stderr {
        let _: Value = serde_json::from_str(line).unwrap();
    }
    for printed in ["\"printed\"", "\"printed to stderr\""] {
        assert!(
            exit.stderr.iter().any(|line| line.contains(printed)),
            "{exit}"
        );
    }
    assert!(
        exit.stdout
            .iter()
            .any(|line| line.contains("/log_depth/print"))
    );
    for line in &exit.stdout {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["path"].is_string(), "{line}");
    }
    let listening = exit
        .stderr
        .iter()
        .filter(|line| line.contains("\"Listening\""));
    let listening: Vec<Value> = listening
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listening.len(), 1, "{exit}");
    assert_eq!(listening[0]["fields"]["url"], format!("http://{address}"));
}
