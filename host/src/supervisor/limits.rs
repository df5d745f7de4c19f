//! Recycles workers that are too old, or take too much memory or disk space.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::statvfs;
use tokio::{task, time};

use super::{Supervisor, TaskOutcome, app::WorkerId, recycle::RecycleReason};
use crate::config::WorkerConfig;

/// The limits at which a worker is recycled.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecycleLimits {
    /// The most memory of a worker in bytes (`--worker-max-memory`).
    memory: u64,
    /// The most disk space of replaced libraries in bytes (`--worker-max-copies`).
    copies: u64,
    /// The longest life of a worker (`--worker-max-age`).
    age: Option<Duration>,
}

impl RecycleLimits {
    pub(super) fn of(config: &WorkerConfig) -> Self {
        Self {
            memory: config.worker_max_memory,
            copies: config.worker_max_copies,
            age: config.worker_max_age,
        }
    }

    /// Returns whether copies of `size` bytes are too much for a disk with `free` bytes. Copies that take
    /// more than is left are too much, but a few never are: a disk that others have filled must not turn each
    /// reload into a recycle.
    fn are_too_large(self, size: u64, free: Option<u64>) -> bool {
        size > self.copies
            || (self.copies != u64::MAX
                && size > FEW_COPIES
                && free.is_some_and(|free| size > free))
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

impl Supervisor {
    /// Starts a background task that measures the copies which a worker keeps open though no app can start
    /// them again. They are removed when the worker has exited.
    pub(super) fn measure_copies(&mut self, worker: WorkerId) {
        let apps = self.apps.values().chain(self.removed.values());
        let apps: Vec<_> = apps.collect();
        let copies = self.fleet.opened(worker).map(Path::to_owned);
        let copies = copies.filter(|copy| !apps.iter().any(|app| app.uses_copy(copy)));
        let copies: Vec<PathBuf> = copies.collect();
        if copies.is_empty() {
            return;
        }
        self.tasks.spawn(async move {
            let measured = task::spawn_blocking(move || measure(&copies));
            let (size, free) = measured.await.unwrap_or_default();
            TaskOutcome::CopiesMeasured { worker, size, free }
        });
    }

    /// Recycles a worker whose replaced libraries take too much of the disk.
    pub(super) fn copies_measured(&mut self, worker: WorkerId, size: u64, free: Option<u64>) {
        if self.limits.are_too_large(size, free) {
            self.recycle(worker, RecycleReason::Disk);
            self.recycle_next();
        }
    }
}

/// Returns the size of the files in bytes, and how many bytes are free on their disk.
fn measure(files: &[PathBuf]) -> (u64, Option<u64>) {
    let sizes = files
        .iter()
        .filter_map(|file| Some(fs::metadata(file).ok()?.len()));
    let disk = files.first().and_then(|file| statvfs(file).ok());
    (sizes.sum(), disk.map(|disk| disk.f_bavail * disk.f_frsize))
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

/// The size of copies in bytes that never causes a recycle for lack of free disk space.
const FEW_COPIES: u64 = 64 << 20;

/// How often workers are measured.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_by_the_option_and_by_the_disk() {
        let limits = |copies| RecycleLimits {
            memory: u64::MAX,
            copies,
            age: None,
        };
        let (mib, gib) = (1 << 20, 1 << 30);
        for (copies, size, free, expected) in [
            (gib, gib, Some(100 * gib), false),
            (gib, gib + 1, Some(100 * gib), true),
            (gib, gib + 1, None, true),
            (gib, 100 * mib, Some(100 * mib), false),
            (gib, 100 * mib, Some(99 * mib), true),
            (gib, 60 * mib, Some(0), false),
            (u64::MAX, 100 * gib, Some(0), false),
        ] {
            let is = limits(copies).are_too_large(size, free);
            assert_eq!(is, expected, "{copies} {size} {free:?}");
        }
    }

    #[test]
    fn workers_that_started_together_do_not_end_together() {
        let limits = RecycleLimits {
            memory: u64::MAX,
            copies: u64::MAX,
            age: Some(Duration::from_secs(1000)),
        };
        let is_old = |worker, seconds| limits.is_old(worker, Duration::from_secs(seconds));
        let at_limit = (1..=100).filter(|&worker| is_old(worker, 1000)).count();
        assert!((20..=80).contains(&at_limit), "{at_limit}");
        assert!((1..=100).all(|worker| !is_old(worker, 899) && is_old(worker, 1111)));
    }
}
