//! Recycles workers that are too old or take too much memory.

use std::{fs, time::Duration};

use tokio::time;

use super::{Supervisor, TaskOutcome, app::WorkerId, recycle::RecycleReason};
use crate::config::WorkerConfig;

/// The limits at which a worker is recycled.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecycleLimits {
    /// The most memory of a worker in bytes (`--worker-max-memory`).
    memory: u64,
    /// The longest life of a worker (`--worker-max-age`).
    age: Option<Duration>,
}

impl RecycleLimits {
    pub(super) fn of(config: &WorkerConfig) -> Self {
        Self {
            memory: config.worker_max_memory,
            age: config.worker_max_age,
        }
    }

    /// Returns whether a worker has reached the age limit. The limit differs by up to a tenth between
    /// workers, so that workers that started together are not recycled together.
    fn is_old(self, worker: WorkerId, age: Duration) -> bool {
        // A factor between 0.9 and 1.1, computed from the worker's number so that it stays the same.
        let jitter = 0.9 + (worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / 8e7;
        self.age.is_some_and(|limit| age >= limit.mul_f64(jitter))
    }
}

impl Supervisor {
    /// Starts a background task that measures the workers after [`BETWEEN_CHECKS`]. Does nothing without
    /// limits.
    pub(super) fn check_later(&mut self) {
        if self.limits.age.is_none() && self.limits.memory == u64::MAX {
            return;
        }
        let workers = self.fleet.ages();
        self.tasks.spawn(async move {
            time::sleep(BETWEEN_CHECKS).await;
            let pids = workers.into_iter().map(|(worker, pid, _)| (worker, pid));
            let sizes = pids.map(|(worker, pid)| (worker, resident(pid)));
            TaskOutcome::Checked(sizes.collect())
        });
    }

    /// Recycles the workers that exceed a limit, and schedules the next check.
    pub(super) fn checked(&mut self, sizes: Vec<(WorkerId, Option<u64>)>) {
        for (worker, size) in sizes {
            if size.is_some_and(|size| size > self.limits.memory) {
                self.recycle(worker, RecycleReason::Memory);
            }
        }
        for (worker, _, age) in self.fleet.ages() {
            if self.limits.is_old(worker, age) {
                self.recycle(worker, RecycleReason::Age);
            }
        }
        self.recycle_next();
        self.check_later();
    }
}

/// Returns the anonymous memory of a process in bytes (proc_pid_status(5), `RssAnon`). Pages of private
/// copies do not count, because the kernel can drop them and read them again.
fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// How often workers are measured.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_started_together_do_not_end_together() {
        let limits = RecycleLimits {
            memory: u64::MAX,
            age: Some(Duration::from_secs(1000)),
        };
        let is_old = |worker, seconds| limits.is_old(worker, Duration::from_secs(seconds));
        let at_limit = (1..=100).filter(|&worker| is_old(worker, 1000)).count();
        assert!((20..=80).contains(&at_limit), "{at_limit}");
        assert!((1..=100).all(|worker| !is_old(worker, 899) && is_old(worker, 1111)));
    }
}
