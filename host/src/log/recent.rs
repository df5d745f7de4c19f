//! Stores the latest log lines and panics together with the ids of their requests. Only the server of a development
//! session stores lines and panics, for the pages that explain why a request failed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A panic of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// The message of the panic.
    pub message: String,
    /// The file, line and column of the `panic!`. `None` if the plugin does not know them.
    pub location: Option<(String, u32, u32)>,
    /// The backtrace in the format of std. `None` if the plugin took no backtrace.
    pub backtrace: Option<String>,
}

/// The stored lines and panics, the oldest first.
#[derive(Debug, Default)]
struct Recent {
    /// The id of the request, and the line.
    lines: VecDeque<(String, String)>,
    /// The id of the request, and the panic.
    panics: VecDeque<(String, Panic)>,
}

/// Starts to store lines and panics.
pub fn start() {
    // A second call changes nothing.
    RECENT.get_or_init(Mutex::default);
}

/// Returns whether [`start`] was called.
#[must_use]
pub fn is_on() -> bool {
    RECENT.get().is_some()
}

/// Stores a log line of the request with the id `request`. Does nothing before [`start`].
pub fn add_line(request: &str, line: &[u8]) {
    if let Some(mut recent) = recent() {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        push(&mut recent.lines, MAX_LINES, (request.to_owned(), line));
    }
}

/// Stores a panic in the request with the id `request`. Does nothing before [`start`].
pub fn add_panic(request: &str, panic: Panic) {
    if let Some(mut recent) = recent() {
        push(&mut recent.panics, MAX_PANICS, (request.to_owned(), panic));
    }
}

/// Returns the stored lines of the request with the id `request`, the oldest first, and the last panic in that request.
#[must_use]
pub fn of_request(request: &str) -> (Vec<String>, Option<Panic>) {
    let Some(recent) = recent() else {
        return (Vec::new(), None);
    };
    let lines = recent.lines.iter().filter(|(id, _)| id == request);
    let mut panics = recent.panics.iter().filter(|(id, _)| id == request);
    let lines = lines.map(|(_, line)| line.clone()).collect();
    (lines, panics.next_back().map(|(_, panic)| panic.clone()))
}

/// Appends `new` to `queue`. If the queue has `limit` entries, first drops the oldest entry.
fn push<T>(queue: &mut VecDeque<T>, limit: usize, new: T) {
    if queue.len() == limit {
        queue.pop_front();
    }
    queue.push_back(new);
}

/// Locks the stored lines and panics. Returns `None` before [`start`].
fn recent() -> Option<MutexGuard<'static, Recent>> {
    let recent = RECENT.get()?;
    Some(recent.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The stored lines and panics, created by [`start`].
static RECENT: OnceLock<Mutex<Recent>> = OnceLock::new();

/// The largest number of stored lines of all requests together.
const MAX_LINES: usize = 1000;

/// The largest number of stored panics of all requests together.
const MAX_PANICS: usize = 50;
