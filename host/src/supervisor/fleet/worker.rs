//! One worker, as the supervisor knows it without asking it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Instant, SystemTime},
};

use rustix::process::getpid;

use super::link::Link;
use crate::orders::Step;

#[derive(Debug)]
pub(in crate::supervisor) struct Worker {
    pub(super) link: Link,
    /// When it was started.
    pub(super) since: Instant,
    pub(super) started_at: SystemTime,
    /// Whether it was told to stop.
    pub(in crate::supervisor) is_leaving: bool,
    /// Whether the supervisor has killed it.
    pub(in crate::supervisor) is_killed: bool,
    /// The private copies that it has opened.
    pub(super) opened: BTreeSet<PathBuf>,
    /// Whether it takes orders.
    pub(super) is_ready: bool,
    /// Whether it accepts connections.
    pub(super) accepts: bool,
    /// What it has to start before it accepts: the generation by app.
    pub(super) booting: BTreeMap<String, u64>,
    /// The step of each load that is under way.
    pub(super) steps: BTreeMap<(String, u64), Step>,
    pub(super) loads_left: usize,
}

impl Worker {
    /// Its process; none when that could not be started.
    pub(in crate::supervisor) fn pid(&self) -> Option<i32> {
        match &self.link.process {
            Some(process) => process.pid,
            None => Some(getpid().as_raw_pid()),
        }
    }

    /// When it was started.
    pub(in crate::supervisor) fn since(&self) -> SystemTime {
        self.started_at
    }

    /// What it does, in a word.
    pub(in crate::supervisor) fn state(&self) -> &'static str {
        match (self.is_leaving, self.accepts) {
            (true, _) => "leaving",
            (false, true) => "serving",
            (false, false) => "starting",
        }
    }

    /// The loads that are in the code of a library.
    pub(in crate::supervisor) fn loading(&self) -> Vec<(String, u64)> {
        let in_code = |step: &Step| matches!(step, Step::Open | Step::Init);
        let loads = self.steps.iter().filter(|(_, step)| in_code(step));
        loads.map(|(load, _)| load.clone()).collect()
    }
}
