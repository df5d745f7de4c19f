//! Recycles workers that are too old, or that use too much memory or disk space.

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
    /// The maximum memory of a worker in bytes (`--worker-max-memory`). `u64::MAX` means no limit.
    max_memory: u64,
    /// The maximum disk space of a worker's replaced libraries in bytes (`--worker-max-copies`). `u64::MAX` means no
    /// limit.
    max_copies: u64,
    /// The maximum age of a worker (`--worker-max-age`). `None` means no limit.
    max_age: Option<Duration>,
}

impl RecycleLimits {
    pub(super) fn of(config: &WorkerConfig) -> Self {
        Self {
            max_memory: config.worker_max_memory,
            max_copies: config.worker_max_copies,
            max_age: config.worker_max_age,
        }
    }

    /// Returns whether copies of `size` bytes are too large: they exceed the limit, or are larger than the `free` bytes
    /// of their disk. Copies of up to [`SMALL_COPIES_BYTES`] may be larger than the free space: a disk that is full of
    /// other files must not cause a recycling after each reload.
    fn are_too_large(self, size: u64, free: Option<u64>) -> bool {
        // Without a limit, the free space does not matter either.
        size > self.max_copies
            || (self.max_copies != u64::MAX
                && size > SMALL_COPIES_BYTES
                && free.is_some_and(|free| size > free))
    }

    /// Returns whether a worker has reached the age limit. The limit of each worker is up to a tenth lower or higher
    /// than the configured limit, so that workers that started together are not recycled together.
    fn is_old(self, worker: WorkerId, age: Duration) -> bool {
        // A factor between 0.9 and 1.1. The factor is computed from the worker's number and is not random, so that each
        // check of the same worker uses the same factor. The multiplication spreads consecutive numbers over the range.
        let jitter = 0.9 + (worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / 8e7;
        self.max_age
            .is_some_and(|limit| age >= limit.mul_f64(jitter))
    }
}

impl Supervisor {
    /// Starts a background task that measures the memory of all workers after [`CHECK_INTERVAL`]. Does nothing if
    /// neither memory nor age has a limit.
    pub(super) fn schedule_check(&mut self) {
        if self.limits.max_age.is_none() && self.limits.max_memory == u64::MAX {
            return;
        }
        let workers = self.fleet.ages();
        self.tasks.spawn(async move {
            time::sleep(CHECK_INTERVAL).await;
            let pids = workers.into_iter().map(|(worker, pid, _)| (worker, pid));
            let sizes = pids.map(|(worker, pid)| (worker, anonymous_memory(pid)));
            TaskOutcome::WorkersMeasured(sizes.collect())
        });
    }

    /// Recycles the workers that exceed a limit, and schedules the next check. `sizes` contains the memory of each
    /// worker.
    pub(super) fn workers_measured(&mut self, sizes: Vec<(WorkerId, Option<u64>)>) {
        for (worker, size) in sizes {
            if size.is_some_and(|size| size > self.limits.max_memory) {
                self.recycle(worker, RecycleReason::Memory);
            }
        }
        for (worker, _, age) in self.fleet.ages() {
            if self.limits.is_old(worker, age) {
                self.recycle(worker, RecycleReason::Age);
            }
        }
        self.recycle_next();
        // The next check is scheduled only now, so that checks never overlap.
        self.schedule_check();
    }
}

impl Supervisor {
    /// Starts a background task that measures the private copies that a worker has opened and no app can start again.
    /// These copies use disk space until the worker has exited.
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

    /// Recycles a worker whose replaced libraries use too much disk space.
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

/// Returns the anonymous memory of a process in bytes (proc_pid_status(5), `RssAnon`), or `None` if the process has
/// exited. The pages of mapped private copies do not count, because the kernel can drop them and read them again.
fn anonymous_memory(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Copies of up to this size in bytes never cause a recycling for lack of free disk space.
const SMALL_COPIES_BYTES: u64 = 64 << 20;

/// The time between two measurements of the workers.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_by_the_option_and_by_the_disk() {
        let limits = |copies| RecycleLimits {
            max_memory: u64::MAX,
            max_copies: copies,
            max_age: None,
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
            max_memory: u64::MAX,
            max_copies: u64::MAX,
            max_age: Some(Duration::from_secs(1000)),
        };
        let is_old = |worker, seconds| limits.is_old(worker, Duration::from_secs(seconds));
        let at_limit = (1..=100).filter(|&worker| is_old(worker, 1000)).count();
        assert!((20..=80).contains(&at_limit), "{at_limit}");
        assert!((1..=100).all(|worker| !is_old(worker, 899) && is_old(worker, 1111)));
    }
}
