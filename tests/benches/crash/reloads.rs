//! Thousands of reloads in one run of the host: workers are recycled before they reach their limit of loads, and disk
//! and memory do not fill up.

use std::{fs, path::Path, time::Instant};

use host_tests::{Ctl, Library, Setup};
use serde_json::Value;

use crate::{clients::Clients, report::Table};

/// Replaces a library `count` times under load. Returns whether no request was lost.
pub(crate) async fn run(count: usize) -> bool {
    let ctl = Ctl::new();
    let state = tempfile::tempdir().expect("there is a folder for temporary files");
    let library = Library::plugin("versioned").stripped();
    let setup = Setup::new()
        .library(FILE, &library.marked("v0"))
        .arg(ctl.option())
        .arg("--state-dir")
        .arg(state.path())
        .args(&["--threads=2", "--quiet-time=1h"]);
    let host = setup.start().await;
    host.serves("/versioned", "v0").await;
    let mut clients = Clients::new(host.address());
    clients.ask(8, "/versioned", true, |_, text| text.starts_with('v'));
    clients.ask(8, "/versioned", false, |_, text| text.starts_with('v'));
    let (mut times, mut disk, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for version in 1..=count {
        let mark = format!("v{version}");
        host.folder().put(FILE, &library.marked(&mark));
        let began = Instant::now();
        ctl.json(&["reload", "versioned"]).await;
        times.push(began.elapsed());
        assert_eq!(host.get("/versioned").await.text(), mark);
        if version % 20 == 0 {
            disk.push(bytes_below(state.path()));
            memory.push(memory_of(&ctl).await);
        }
    }
    let mut table = Table::new(format!("{count} reloads in one run"));
    let tally = clients.finish(&mut table).await;
    table.times("host ctl reload", &mut times);
    table.row(
        "workers that were recycled",
        host.log().with(&["INFO", "Recycled"]).len(),
    );
    let mib = |bytes: Option<u64>| bytes.unwrap_or_default() >> 20;
    table.row("size of the library, KiB", library.bytes().len() >> 10);
    for (name, values) in [
        ("disk of the copies", disk),
        ("memory of the workers (PSS)", memory),
    ] {
        let (last, largest) = (values.last().copied(), values.iter().max().copied());
        table.row(
            &format!("{name}: most, at the end"),
            format!("{}, {} MiB", mib(largest), mib(last)),
        );
    }
    table.print();
    tally.lost() == 0
}

const FILE: &str = "libversioned.so";

/// Returns the memory of all workers in bytes.
async fn memory_of(ctl: &Ctl) -> u64 {
    let report = ctl.json(&["workers"]).await;
    let workers = report["workers"].as_array().cloned().unwrap_or_default();
    let bytes = |worker: &Value| worker["memory_bytes"].as_u64().unwrap_or_default();
    workers.iter().map(bytes).sum()
}

/// Returns the size of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // The host may have deleted the file since it was listed.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
