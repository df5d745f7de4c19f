//! The threads of a tokio runtime: one that is blocked must not hold up idle ones.

use tokio::runtime::{Handle, RuntimeMetrics};

/// Watches the worker threads of a multi-threaded runtime.
///
/// One worker waits for the runtime's sockets and timers, for all workers. When that worker takes up a
/// task that blocks, nobody waits for sockets and timers until the worker is back, though others are idle
/// (<https://github.com/tokio-rs/tokio/issues/4730>). An idle worker that is woken waits in its place.
#[derive(Debug)]
pub struct Workers {
    handle: Handle,
    metrics: RuntimeMetrics,
    /// How often each worker had begun or ended to wait at the last look.
    counts: Box<[u64]>,
}

impl Workers {
    /// Watches the workers of this runtime, from any thread.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        let metrics = handle.metrics();
        Self {
            counts: vec![0; metrics.num_workers()].into(),
            handle,
            metrics,
        }
    }

    /// Wakes an idle worker if another worker has been working without a pause since the last call. Never
    /// blocks. Call it at regular intervals.
    pub fn look_after(&mut self) {
        if self.counts.len() < 2 {
            // One thread alone has no other to wake.
            return;
        }
        let mut is_one_stuck = false;
        for (worker, before) in self.counts.iter_mut().enumerate() {
            // A worker counts each time that it parks and unparks: the count is even while it works.
            let count = self.metrics.worker_park_unpark_count(worker);
            is_one_stuck |= count % 2 == 0 && count == *before;
            *before = count;
        }
        if is_one_stuck {
            // A task that comes from outside of the runtime wakes a worker, if one is idle.
            self.handle.spawn(async {});
        }
    }
}
