//! The state of one worker that the supervisor knows without a query.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Instant, SystemTime},
};

use rustix::process::getpid;

use super::link::Link;
use crate::orders::Step;

/// A worker in the fleet.
#[derive(Debug)]
pub(in crate::supervisor) struct WorkerRecord {
    pub(super) link: Link,
    /// When the worker was started, by the monotonic clock.
    pub(super) since: Instant,
    /// When the worker was started, by the wall clock, for reports.
    pub(super) started_at: SystemTime,
    /// Whether the worker has the order to stop, or was killed.
    pub(in crate::supervisor) is_leaving: bool,
    /// Whether the supervisor has killed the worker.
    pub(in crate::supervisor) is_killed: bool,
    /// The private copies that the worker has opened.
    pub(super) opened: BTreeSet<PathBuf>,
    /// Whether the worker is ready for orders.
    pub(super) is_ready: bool,
    /// Whether the worker has the order to accept connections.
    pub(super) is_accepting: bool,
    /// The number of the generation of each app whose load must end before the worker accepts connections.
    pub(super) booting: BTreeMap<String, u64>,
    /// The current step of each load under way, by app and generation.
    pub(super) steps: BTreeMap<(String, u64), Step>,
    /// How many more libraries the worker can load, from its latest report.
    pub(super) loads_left: usize,
}

impl WorkerRecord {
    /// Returns the process number. For a worker that is a task, that is the number of this process. Returns `None` if
    /// the process could not be started.
    pub(in crate::supervisor) fn pid(&self) -> Option<i32> {
        match &self.link.process {
            Some(process) => process.pid,
            None => Some(getpid().as_raw_pid()),
        }
    }

    /// Returns when the worker was started.
    pub(in crate::supervisor) fn since(&self) -> SystemTime {
        self.started_at
    }

    /// Returns the worker's state in one word, for operators.
    pub(in crate::supervisor) fn state(&self) -> &'static str {
        match (self.is_leaving, self.is_accepting) {
            (true, _) => "leaving",
            (false, true) => "serving",
            (false, false) => "starting",
        }
    }

    /// Returns the loads that are running the code of a library: the loads in the steps `open` and `init`.
    pub(in crate::supervisor) fn loading(&self) -> Vec<(String, u64)> {
        let runs_library_code = |step: &Step| matches!(step, Step::Open | Step::Init);
        let loads = self
            .steps
            .iter()
            .filter(|(_, step)| runs_library_code(step));
        loads.map(|(load, _)| load.clone()).collect()
    }
}
