//! Keeps a blocked thread of a tokio runtime from stalling the runtime's sockets and timers.

use tokio::runtime::{Handle, RuntimeMetrics};

/// Watches the worker threads of a multi-threaded tokio runtime.
///
/// In such a runtime only one idle worker waits for sockets and timers, on behalf of all workers. If that worker starts
/// a task that blocks the thread, no other worker takes over the waiting, although other workers are idle
/// (<https://github.com/tokio-rs/tokio/issues/4730>). Sockets and timers are then not served until the task returns. An
/// idle worker that is woken takes over the waiting.
#[derive(Debug)]
pub struct StallWatch {
    handle: Handle,
    metrics: RuntimeMetrics,
    /// For each worker, the number of its parks and unparks at the last check.
    park_counts: Box<[u64]>,
}

impl StallWatch {
    /// Creates a watch for the runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        let metrics = handle.metrics();
        Self {
            park_counts: vec![0; metrics.num_workers()].into(),
            handle,
            metrics,
        }
    }

    /// Wakes an idle worker if another worker has run without a pause since the last call. Never blocks. The caller
    /// calls this at regular intervals, from any thread.
    pub fn wake_if_stalled(&mut self) {
        if self.park_counts.len() < 2 {
            // A single thread has no other thread that could take over.
            return;
        }
        let mut is_stalled = false;
        for (worker, last_count) in self.park_counts.iter_mut().enumerate() {
            // The counter of a worker grows by one when the worker parks and when it unparks, so the count is even
            // while the worker runs. An even count that has not changed means that the worker did not park in between.
            let count = self.metrics.worker_park_unpark_count(worker);
            is_stalled |= count % 2 == 0 && count == *last_count;
            *last_count = count;
        }
        if is_stalled {
            // When a task is spawned from outside the runtime, tokio wakes an idle worker, if there is one.
            self.handle.spawn(async {});
        }
    }
}
