//! The log in a file: while the file is rotated, every line is written whole, and no line is lost.

use std::{collections::HashSet, fs, path::Path};

use host_tests::{Setup, eventually};
use rustix::process::Signal;
use serde_json::Value;

const THREADS: usize = 8;
const ROTATIONS: usize = 10;
/// The number of lines that each thread logs between two rotations. A debug build logs fewer, because it is slow: for
/// 100,000 lines a thread (ten rotations) it takes a minute, and a release build a few seconds.
const LINES: usize = if cfg!(debug_assertions) {
    2_000
} else {
    10_000
};

#[tokio::test]
async fn eight_threads_write_whole_lines_through_rotations_and_lose_none() {
    let setup = Setup::new().plugin("log_depth").arg("--log-format=json");
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path();
    let file = folder.join("log");
    let host = setup.arg("--log-file").arg(&file).start().await;
    host.answers("/log_depth/debug", 200).await;
    let path = format!("/log_depth/flood/{THREADS}/{LINES}");
    for rotation in 0..ROTATIONS {
        let mut connection = host.http1().await;
        let path = path.clone();
        let flood = tokio::spawn(async move { connection.get(&path).await.status });
        // Rotate while the file grows.
        let before = len(&file);
        eventually("the flood has begun", async || {
            (len(&file) > before + 100_000).then_some(())
        })
        .await;
        fs::rename(&file, folder.join(format!("log.{rotation}"))).unwrap();
        host.signal(Signal::USR1);
        eventually("the file is there anew", async || {
            file.exists().then_some(())
        })
        .await;
        assert_eq!(flood.await.unwrap(), 200);
    }
    assert_eq!(host.stop().await.code, Some(0));

    let mut seen = HashSet::new();
    let old = (0..ROTATIONS).map(|rotation| folder.join(format!("log.{rotation}")));
    for file in old.chain([file]) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with('\n'), "{}", file.display());
        for line in text.lines() {
            assert!(
                line.starts_with("{\"timestamp\":\"") && line.ends_with('}'),
                "{line}"
            );
            if line.contains("\"message\":\"flood ") {
                seen.insert(flood_line(line));
            }
        }
    }
    assert_eq!(seen.len(), THREADS * LINES * ROTATIONS);
}

/// Returns the parts that identify a line: the time, the thread and the number. Only every hundredth line is parsed as
/// JSON, because the test has very many lines.
fn flood_line(line: &str) -> (String, usize, usize) {
    let number = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        rest[..digits].parse().ok()
    };
    let (thread, number) = number("\"thread\":").zip(number("\"line\":")).unwrap();
    if number % 100 == 0 {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["fields"]["line"], number, "{line}");
    }
    (line[14..41].to_owned(), thread, number)
}

fn len(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_ends_the_start() {
    for flag in ["--log-file", "--access-log"] {
        let exit = Setup::new().arg(flag).arg("/nowhere/log").run().await;
        assert_eq!(exit.code, Some(1), "{exit}");
        assert!(
            exit.to_string().contains("cannot open /nowhere/log"),
            "{exit}"
        );
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_anew_is_written_on() {
    let setup = Setup::new();
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path().join("logs");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("log");
    let setup = setup.plugin("hello").arg("--log-file").arg(&file);
    let host = setup.start().await;
    // Supervisor and worker each open the log file, so wait until the worker has started too.
    host.answers("/", 200).await;
    let moved = logs.path().join("moved");
    fs::rename(&folder, &moved).unwrap();
    host.signal(Signal::USR1);
    let text = || fs::read_to_string(moved.join("log")).unwrap();
    eventually("the failure is told", async || {
        text().contains("Log file not reopened").then_some(())
    })
    .await;
    assert_eq!(host.stop().await.stderr, [""; 0]);
    assert!(text().contains("Stopped"), "{}", text());
}
