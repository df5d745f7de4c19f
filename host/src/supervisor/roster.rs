//! The list of the workers for an operator (`host ctl workers`). If a worker does not answer in time, the list is sent
//! without the numbers of that worker, so that an operator gets the list even if workers hang.

use std::{fs, time::SystemTime};

use serde::Serialize;
use tokio::{sync::oneshot, task};

use super::{Supervisor, app::WorkerId, outcome::rfc3339};
use crate::orders::WorkerReport;

/// All workers, and the latest deaths.
#[derive(Clone, Debug, Serialize)]
pub struct Roster {
    /// The target number of worker processes. 0 if the only worker is a task of the server process.
    pub wanted: usize,
    /// The running workers.
    pub workers: Vec<WorkerView>,
    /// The most recent worker deaths, the latest first. The exit of a worker that stopped as ordered is not included.
    pub died: Vec<WorkerDeath>,
}

/// A worker in the list.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerView {
    /// The worker's number. Numbers are not reused.
    pub worker: WorkerId,
    /// The process number. `None` if the process could not be started.
    pub pid: Option<i32>,
    /// `starting` (accepts no connections yet), `serving`, or `leaving` (has the order to stop and finishes its
    /// requests).
    pub state: &'static str,
    /// When the worker was started.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// The proportional set size in bytes: a page that N processes share counts as 1/N of a page.
    pub memory_bytes: Option<u64>,
    /// The numbers that the worker reports. `None` if the worker did not answer in time.
    #[serde(flatten)]
    pub stats: Option<WorkerStats>,
}

/// The numbers that a worker reports about itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WorkerStats {
    /// The number of apps that serve.
    pub apps: usize,
    /// The number of libraries that were loaded.
    pub loads: usize,
    /// About how many more libraries can be loaded.
    pub loads_left: usize,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests since the start of the worker.
    pub requests: u64,
}

/// The death of a worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerDeath {
    /// The worker's number.
    pub worker: WorkerId,
    /// The process number. `None` if the process could not be started.
    pub pid: Option<i32>,
    /// When the worker died.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The cause of death.
    pub what: String,
    /// The app that is to blame, if the evidence names one.
    pub plugin: Option<String>,
    /// The generation that is to blame.
    pub generation: Option<u64>,
}

impl Supervisor {
    /// Sends the list of all workers on `reply`. The list contains the numbers of the workers that are in `reports`.
    pub(super) fn send_roster(
        &self,
        reports: &[(WorkerId, WorkerReport)],
        reply: oneshot::Sender<Roster>,
    ) {
        let workers = self.fleet.workers().map(|(id, worker)| {
            let report = reports.iter().find(|(worker, _)| *worker == id);
            WorkerView {
                worker: id,
                pid: worker.pid(),
                state: worker.state(),
                since: worker.since(),
                memory_bytes: None,
                stats: report.map(|(_, report)| WorkerStats::of(report)),
            }
        });
        let mut roster = Roster {
            wanted: self.wanted_workers,
            workers: workers.collect(),
            died: self.deaths.iter().cloned().collect(),
        };
        // Reading the memory of a large process takes milliseconds, because the kernel walks all its pages.
        task::spawn_blocking(move || {
            for worker in &mut roster.workers {
                worker.memory_bytes = worker.pid.and_then(proportional_memory);
            }
            // The requester may have disconnected.
            let _ = reply.send(roster);
        });
    }

    /// Stores the death of a worker for the list. Only the most recent deaths are stored.
    pub(super) fn remember_death(&mut self, died: WorkerDeath) {
        self.deaths.push_front(died);
        self.deaths.truncate(MAX_DEATHS);
    }
}

impl WorkerStats {
    fn of(report: &WorkerReport) -> Self {
        let generations = report.generations.iter();
        Self {
            apps: generations
                .clone()
                .filter(|generation| generation.state == "serving")
                .count(),
            loads: report.loads,
            loads_left: report.loads_left,
            in_flight: generations.map(|generation| generation.in_flight).sum(),
            requests: report.requests,
        }
    }
}

/// Returns the proportional set size of a process in bytes (proc_pid_smaps(5)). Returns `None` if the process has
/// exited or the kernel does not report the size.
fn proportional_memory(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    parse_pss(&rollup)
}

/// Returns the proportional set size in bytes from the text of a file `smaps_rollup`.
fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// The number of deaths that are stored for the list.
const MAX_DEATHS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_the_proportional_set_size() {
        let rollup = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss:    1234 kB\nPss_Dirty:    1 kB\n";
        assert_eq!(parse_pss(rollup), Some(1234 << 10));
        assert_eq!(parse_pss("Rss:    9000 kB\n"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(proportional_memory(own) > Some(100 << 10));
    }
}
