//! `scripts/bench instructions`: counts the user instructions of a request with callgrind, for a plugin in the host and
//! for its twin, which has the same handler compiled in.
//!
//! Each server runs twice, with more and with fewer requests. The difference of the two counts is the cost of the
//! requests without start and stop. The program compares each ratio with the ratio that docs/BENCHMARKS.md records, and
//! fails if a ratio is more than 3 % higher.
//!
//! The host is counted twice: as it is released, and as `cargo build --release` builds it ("plain"), which is how the
//! twin is built.
//!
//! Arguments: the folder of the twins and of the plain host, the folder of the released host, the folder of the native
//! plugin, the folder of the axum plugin, and the file with the recorded ratios. If the two folders of hosts are the
//! same, only the plain host is counted.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use host_bench::{cases, server};
use rustix::process::{Pid, Signal, kill_process};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, released, native, axum, record] = &args[..] else {
        return Err("expected two folders of programs, two plugins folders, and the record".into());
    };
    let record = fs::read_to_string(record)?;
    let hosts = |plugins| {
        let hosts = [("", released), (", both plain", programs)];
        let hosts = hosts
            .into_iter()
            .filter(|(suffix, folder)| !suffix.is_empty() || *folder != programs);
        hosts
            .map(|(suffix, folder)| (suffix, server::host(folder, plugins)))
            .collect::<Vec<_>>()
    };
    let twin = |kind| server::twin(programs, kind);
    let sides = [
        ("native", hosts(native), "bare hyper", twin("bare")),
        ("axum", hosts(axum), "axum::serve", twin("axum")),
    ];
    let requests = [
        ("1 header", cases::get("/quiet", &[])),
        ("12 headers", cases::get("/quiet", &cases::BROWSER)),
    ];

    println!(
        "| instructions a request | plugin in the host | compiled in | ratio |\n|---|---|---|---|"
    );
    let mut worse = Vec::new();
    for (plugin, hosts, server, theirs) in sides {
        for (headers, request) in &requests {
            let theirs = instructions_per_request(&theirs, request)?;
            for (suffix, ours) in &hosts {
                let ours = instructions_per_request(ours, request)?;
                let ratio = ours / theirs;
                let name = format!("{plugin} beside {server}, {headers}{suffix}");
                println!("| {name} | {ours:.0} | {theirs:.0} | {ratio:.3} |");
                worse.extend(check_against_record(&record, &name, ratio));
            }
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(worse.join("; ").into())
}

/// Returns a complaint if the ratio of a row is too high, or if the record has no ratio for the row.
fn check_against_record(record: &str, name: &str, ratio: f64) -> Option<String> {
    match recorded_ratio(record, name) {
        Some(recorded) if ratio <= recorded * MAX_INCREASE => None,
        Some(recorded) => Some(format!("{name}: {recorded} is recorded")),
        None => Some(format!("{name}: nothing is recorded")),
    }
}

/// Returns the recorded ratio of a row, which is its last cell, or `None` if the record has no such row.
fn recorded_ratio(record: &str, name: &str) -> Option<f64> {
    let row = record
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {name} |")))?;
    row.trim_end_matches(['|', ' '])
        .rsplit('|')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Returns the number of instructions that a server needs for one such request.
fn instructions_per_request(command: &[String], request: &str) -> Result<f64, Box<dyn Error>> {
    let few = instructions_of_run(command, request, FEW_ROUNDS)?;
    let many = instructions_of_run(command, request, MANY_ROUNDS)?;
    Ok((many - few) / f64::from((MANY_ROUNDS - FEW_ROUNDS) * CONNECTIONS as u32))
}

/// Runs a server under callgrind for this number of rounds of requests, and returns the number of its instructions from
/// start to stop.
fn instructions_of_run(
    command: &[String],
    request: &str,
    rounds: u32,
) -> Result<f64, Box<dyn Error>> {
    let out = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".to_owned());
    let mut server = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={out}")])
        .args(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let sent = send_requests(&mut server, request, rounds);
    // Stop the server before an error is returned, because nothing else would end it.
    kill_process(Pid::from_child(&server), Signal::TERM)?;
    let printed = server.wait_with_output()?.stderr;
    sent?;
    let printed = String::from_utf8_lossy(&printed);
    let collected = printed
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.ok_or_else(|| format!("valgrind says: {printed}"))?;
    Ok(collected.trim().parse()?)
}

/// Sends one request on each connection in each round, and reads the responses.
fn send_requests(server: &mut Child, request: &str, rounds: u32) -> Result<(), Box<dyn Error>> {
    let stdout = server.stdout.take().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line
        .trim()
        .strip_prefix("Listening on http://")
        .ok_or("no address")?;
    let connect = |_| TcpStream::connect(address);
    let mut connections = (0..CONNECTIONS)
        .map(connect)
        .collect::<io::Result<Vec<_>>>()?;
    let mut length = None;
    let pid = Pid::from_child(server);
    for _ in 0..rounds {
        // The server is stopped while the requests are written, so that it always finds all of them when it continues.
        // The number of wake-ups, and with it the number of instructions, would differ from run to run otherwise.
        stop_process(pid)?;
        for connection in &mut connections {
            connection.write_all(request.as_bytes())?;
        }
        kill_process(pid, Signal::CONT)?;
        for connection in &mut connections {
            // All responses have the length of the first, so the others are read without a search for their end.
            match length {
                None => length = Some(response(connection)?),
                Some(length) => connection.read_exact(&mut [0; 4096][..length])?,
            }
        }
    }
    Ok(())
}

/// Sends SIGSTOP to a process, and returns when the process has stopped.
fn stop_process(pid: Pid) -> io::Result<()> {
    kill_process(pid, Signal::STOP)?;
    loop {
        // The file contains `PID (NAME) STATE …`. The state T means stopped.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
        if stat.contains(") T ") {
            return Ok(());
        }
        thread::yield_now();
    }
}

/// Reads a response to the end of its body, and returns its length. Returns an error if the status is not 200.
fn response(connection: &mut TcpStream) -> io::Result<usize> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\nhello world") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    if bytes.starts_with(b"HTTP/1.1 200 OK\r\n") {
        Ok(bytes.len())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&bytes)))
    }
}

/// The number of connections. In each round every connection has one request.
const CONNECTIONS: usize = 8;

/// The number of rounds of the shorter run.
const FEW_ROUNDS: u32 = 100;
/// The number of rounds of the longer run.
const MANY_ROUNDS: u32 = 600;

/// The factor by which a ratio may exceed the recorded ratio.
const MAX_INCREASE: f64 = 1.03;
