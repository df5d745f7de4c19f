//! Which worker process writes the lines of the log.

use std::sync::OnceLock;

/// A worker, for the lines that its process writes.
#[derive(Clone, Copy, Debug)]
struct Worker {
    number: u64,
    /// Whether lines of text say so too. Where there is one worker, that tells nothing.
    is_in_text: bool,
}

static WORKER: OnceLock<Worker> = OnceLock::new();

/// Has all lines of this process say that the worker `number` wrote them; lines of text only where
/// there are `many` workers. A later call changes nothing.
pub fn set(number: u64, many: bool) {
    // The worker is set up once.
    let _ = WORKER.set(Worker {
        number,
        is_in_text: many,
    });
}

/// The worker that this process is; none in the supervisor, and where there is one process.
#[must_use]
pub fn number() -> Option<u64> {
    WORKER.get().map(|worker| worker.number)
}

/// The worker for a line of text; none where it is not told.
#[must_use]
pub fn in_text() -> Option<u64> {
    let worker = WORKER.get().filter(|worker| worker.is_in_text);
    worker.map(|worker| worker.number)
}
