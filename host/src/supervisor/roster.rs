//! The list of the workers for an operator. What a worker does not tell in time is left out: the list
//! comes also when workers hang, or none lives.

use std::{fs, time::SystemTime};

use serde::Serialize;
use tokio::{sync::oneshot, task};

use super::{Supervisor, app::WorkerId, outcome::rfc3339};
use crate::orders::WorkerReport;

/// The workers.
#[derive(Clone, Debug, Serialize)]
pub struct Roster {
    /// How many worker processes there are to be: 0 when the one worker is a task of the server.
    pub wanted: usize,
    /// Those that there are.
    pub workers: Vec<WorkerView>,
    /// The last workers that died, the latest first. Those that were told to end are not among them.
    pub died: Vec<WorkerDeath>,
}

/// A worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerView {
    /// Its number; numbers are not used again.
    pub worker: WorkerId,
    /// Its process; none when that could not be started.
    pub pid: Option<i32>,
    /// `starting`: it takes no connections yet; `serving`; `leaving`: it was told to end and finishes
    /// its requests.
    pub state: &'static str,
    /// When it was started.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Its memory: the proportional set size in bytes, in which pages that several processes share
    /// count in parts.
    pub memory_bytes: Option<u64>,
    /// What the worker tells of itself; none when it did not answer in time.
    #[serde(flatten)]
    pub stats: Option<WorkerStats>,
}

/// What a worker tells of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WorkerStats {
    /// How many apps it serves.
    pub apps: usize,
    /// How many libraries it has loaded.
    pub loads: usize,
    /// About how many more it can load.
    pub loads_left: usize,
    /// Requests that are in its apps.
    pub in_flight: u64,
    /// Requests that its apps got.
    pub requests: u64,
}

/// A worker that died.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerDeath {
    /// Its number.
    pub worker: WorkerId,
    /// Its process.
    pub pid: Option<i32>,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// What ended it.
    pub what: String,
    /// The app that is to blame, if one is.
    pub plugin: Option<String>,
    /// The generation that is to blame.
    pub generation: Option<u64>,
}

impl Supervisor {
    /// Answers with the workers that there are, and what those have told that are in `reports`.
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
        // The kernel adds up all pages of a process, which takes milliseconds for a large one.
        task::spawn_blocking(move || {
            for worker in &mut roster.workers {
                worker.memory_bytes = worker.pid.and_then(memory);
            }
            // The requester may have disconnected.
            let _ = reply.send(roster);
        });
    }

    /// Notes the death of a worker for the list.
    pub(super) fn remember_death(&mut self, died: WorkerDeath) {
        self.deaths.push_front(died);
        self.deaths.truncate(KEPT_DEATHS);
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

/// The proportional set size of a process in bytes (proc_pid_smaps(5)); none when the process has
/// ended, or the system does not tell.
fn memory(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    pss(&rollup)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// How many deaths are kept for the list.
const KEPT_DEATHS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_the_proportional_set_size() {
        let rollup = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss:    1234 kB\nPss_Dirty:    1 kB\n";
        assert_eq!(pss(rollup), Some(1234 << 10));
        assert_eq!(pss("Rss:    9000 kB\n"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory(own) > Some(100 << 10));
    }
}
