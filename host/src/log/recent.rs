//! The latest log lines and panics, by request. Only the server of a development session keeps them, for
//! the pages that explain why a request failed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A panic of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// The message of the panic.
    pub message: String,
    /// The file, line and column of the `panic!`, if the plugin knows them.
    pub location: Option<(String, u32, u32)>,
    /// The backtrace, as std prints it.
    pub backtrace: Option<String>,
}

/// Lines and panics, each with the id of its request. The oldest ones come first.
#[derive(Debug, Default)]
struct Recent {
    lines: VecDeque<(String, String)>,
    panics: VecDeque<(String, Panic)>,
}

/// Keeps lines and panics from now on. Until this is called, nothing is kept.
pub fn start() {
    RECENT.get_or_init(Mutex::default);
}

/// Whether [`start`] was called.
#[must_use]
pub fn is_on() -> bool {
    RECENT.get().is_some()
}

/// Adds a log line of the request with this id. Does nothing unless recording [is on](is_on).
pub fn add_line(request: &str, line: &[u8]) {
    if let Some(mut recent) = recent() {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        push(&mut recent.lines, MAX_LINES, (request.to_owned(), line));
    }
}

/// Adds a panic in the request with this id. Does nothing unless recording [is on](is_on).
pub fn add_panic(request: &str, panic: Panic) {
    if let Some(mut recent) = recent() {
        push(&mut recent.panics, MAX_PANICS, (request.to_owned(), panic));
    }
}

/// Returns the lines of a request, the oldest first, and the last panic in it.
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

/// Appends `new`, and drops the oldest entry of a queue that has `limit` entries.
fn push<T>(queue: &mut VecDeque<T>, limit: usize, new: T) {
    if queue.len() == limit {
        queue.pop_front();
    }
    queue.push_back(new);
}

fn recent() -> Option<MutexGuard<'static, Recent>> {
    let recent = RECENT.get()?;
    Some(recent.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Set by [`start`].
static RECENT: OnceLock<Mutex<Recent>> = OnceLock::new();

/// How many lines are kept, of all requests together.
const MAX_LINES: usize = 1000;

/// How many panics are kept, of all requests together.
const MAX_PANICS: usize = 50;
