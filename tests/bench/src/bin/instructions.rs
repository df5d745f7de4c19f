//! `scripts/bench instructions`: user instructions a request, by callgrind, of a plugin in the host
//! and of its twin that has the same handler compiled in.
//!
//! Each server is run twice, for more and for fewer requests: the difference is what the requests
//! cost, without start and stop. What docs/BENCHMARKS.md says is compared: a ratio that is worse by
//! more than 3 % fails.
//!
//! The host is counted twice: as it is released, and plain, as `cargo build --release` makes it, which
//! is how the twin is made.
//!
//! Arguments: the folder of the twins and of the plain host, that of the released host, that of the
//! native plugin, that of the axum plugin, and the record. Without a released host, both folders of hosts are the
//! same, and only the plain host is counted.

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
            .filter(|(how, folder)| !how.is_empty() || *folder != programs);
        hosts
            .map(|(how, folder)| (how, server::host(folder, plugins)))
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
            let theirs = count(&theirs, request)?;
            for (how, ours) in &hosts {
                let ours = count(ours, request)?;
                let ratio = ours / theirs;
                let name = format!("{plugin} beside {server}, {headers}{how}");
                println!("| {name} | {ours:.0} | {theirs:.0} | {ratio:.3} |");
                worse.extend(complaint(&record, &name, ratio));
            }
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(worse.join("; ").into())
}

/// What is wrong with the ratio of a row, if it is worse than the record says, or not there.
fn complaint(record: &str, name: &str, ratio: f64) -> Option<String> {
    match recorded(record, name) {
        Some(before) if ratio <= before * WORSE => None,
        Some(before) => Some(format!("{name}: {before} is recorded")),
        None => Some(format!("{name}: nothing is recorded")),
    }
}

/// The ratio that is recorded for a row: its last cell.
fn recorded(record: &str, name: &str) -> Option<f64> {
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

/// How many instructions a server takes for this request.
fn count(command: &[String], request: &str) -> Result<f64, Box<dyn Error>> {
    let few = run(command, request, FEW)?;
    let many = run(command, request, MANY)?;
    Ok((many - few) / f64::from((MANY - FEW) * CONNECTIONS as u32))
}

/// How many instructions a server takes in its life of this many rounds of requests.
fn run(command: &[String], request: &str, rounds: u32) -> Result<f64, Box<dyn Error>> {
    let out = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".to_owned());
    let mut server = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={out}")])
        .args(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let requested = ask(&mut server, request, rounds);
    kill_process(Pid::from_child(&server), Signal::TERM)?;
    let printed = server.wait_with_output()?.stderr;
    requested?;
    let printed = String::from_utf8_lossy(&printed);
    let collected = printed
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.ok_or_else(|| format!("valgrind says: {printed}"))?;
    Ok(collected.trim().parse()?)
}

fn ask(server: &mut Child, request: &str, rounds: u32) -> Result<(), Box<dyn Error>> {
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
        // It finds all of the requests when it goes on, and not as many as it happens to.
        stop(pid)?;
        for connection in &mut connections {
            connection.write_all(request.as_bytes())?;
        }
        kill_process(pid, Signal::CONT)?;
        for connection in &mut connections {
            // Each response is as long as the first.
            match length {
                None => length = Some(response(connection)?),
                Some(length) => connection.read_exact(&mut [0; 4096][..length])?,
            }
        }
    }
    Ok(())
}

/// Stops a process, and returns when it has.
fn stop(pid: Pid) -> io::Result<()> {
    kill_process(pid, Signal::STOP)?;
    loop {
        // `PID (NAME) STATE …`
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
        if stat.contains(") T ") {
            return Ok(());
        }
        thread::yield_now();
    }
}

/// Reads a response to the end of its body, and gives its length.
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

/// How many connections take turns: the server finds a request on each when it wakes.
const CONNECTIONS: usize = 8;

/// How many requests each connection makes in the two runs.
const FEW: u32 = 100;
const MANY: u32 = 600;

/// How much worse a ratio may be than the record says.
const WORSE: f64 = 1.03;
