//! Replacements in four workers: after `host ctl reload` has returned, no worker answers with the old version.

use std::{sync::atomic::Ordering::SeqCst, time::Instant};

use host_tests::{Ctl, Library, Setup};

use crate::{clients::Clients, report::Table};

/// Replaces a library `count` times. Returns whether no request was lost, and no response came from an older version
/// than the version that a reload had reported before the request.
pub(crate) async fn run(count: usize) -> bool {
    let ctl = Ctl::new();
    let library = Library::plugin("versioned").stripped();
    let setup = Setup::new()
        .library(FILE, &library.marked("v0"))
        .arg(ctl.option())
        .args(&["--workers=4", "--threads=1", "--quiet-time=1h"]);
    let host = setup.start().await;
    host.serves("/versioned", "v0").await;
    let mut clients = Clients::new(host.address());
    let tally = clients.tally();
    for is_keep_alive in [true, false] {
        clients.ask(8, "/versioned", is_keep_alive, |reported, text| {
            let version = text.strip_prefix('v').and_then(|text| text.parse().ok());
            version.is_some_and(|version: u64| version >= reported)
        });
    }
    let mut times = Vec::new();
    for version in 1..=count {
        host.folder()
            .put(FILE, &library.marked(&format!("v{version}")));
        let began = Instant::now();
        let proof = ctl.json(&["reload", "versioned"]).await;
        times.push(began.elapsed());
        assert!(proof["new_generation"].as_u64() > Some(1), "{proof}");
        tally.reported.store(version as u64, SeqCst);
    }
    let mut table = Table::new(format!("{count} replacements in four workers"));
    clients.finish(&mut table).await;
    table.times("host ctl reload", &mut times);
    table.print();
    tally.lost() == 0
}

const FILE: &str = "libversioned.so";
