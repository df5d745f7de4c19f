//! The number of the worker process that writes the lines of the log.

use std::sync::OnceLock;

/// The worker that the lines of this process name.
#[derive(Clone, Copy, Debug)]
struct WorkerTag {
    number: u64,
    /// Whether lines of text have the number too. With one worker it would tell nothing.
    is_in_text: bool,
}

static WORKER: OnceLock<WorkerTag> = OnceLock::new();

/// Adds the number of this worker to all lines of this process from now on. Lines of text get the number
/// only if there are `many` workers. A later call changes nothing.
pub fn set(number: u64, many: bool) {
    // A process is one worker, so that this is called once.
    let _ = WORKER.set(WorkerTag {
        number,
        is_in_text: many,
    });
}

/// Returns the number of this worker. None in the supervisor, and in a server of one process.
#[must_use]
pub fn number() -> Option<u64> {
    WORKER.get().map(|worker| worker.number)
}

/// Returns the number for a line of text. None when lines of text do not have it.
#[must_use]
pub fn in_text() -> Option<u64> {
    let worker = WORKER.get().filter(|worker| worker.is_in_text);
    worker.map(|worker| worker.number)
}
