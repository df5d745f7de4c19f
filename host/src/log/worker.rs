//! The number of the worker process that writes the lines of the log.

use std::sync::OnceLock;

/// The worker number of this process, and the formats that contain the number.
#[derive(Clone, Copy, Debug)]
struct WorkerTag {
    number: u64,
    /// Whether lines in the text format contain the number. JSON lines always contain the number.
    is_in_text: bool,
}

/// The number of this process, set by [`set`].
static WORKER: OnceLock<WorkerTag> = OnceLock::new();

/// Adds the number of this worker to the lines of this process from now on: always to JSON lines, and to lines in the
/// text format if `is_in_text` is true. A later call changes nothing.
pub fn set(number: u64, is_in_text: bool) {
    // Fails at a second call. No process makes a second call, because a process is only one worker.
    let _ = WORKER.set(WorkerTag { number, is_in_text });
}

/// Returns the number of this worker. Returns `None` in the supervisor, and in a server that is one process.
#[must_use]
pub fn number() -> Option<u64> {
    WORKER.get().map(|worker| worker.number)
}

/// Returns the number for a line in the text format. Returns `None` if such lines do not contain the number.
#[must_use]
pub fn number_in_text() -> Option<u64> {
    let worker = WORKER.get().filter(|worker| worker.is_in_text);
    worker.map(|worker| worker.number)
}
