//! What the log knows of the latest requests: their lines, and the panics in them.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A panic of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// What it says.
    pub message: String,
    /// Where it was: file, line and column.
    pub location: Option<(String, u32, u32)>,
    /// The backtrace, as std prints it.
    pub backtrace: Option<String>,
}

#[derive(Debug, Default)]
struct Captured {
    lines: VecDeque<(String, String)>,
    panics: VecDeque<(String, Panic)>,
}

/// Keeps what is logged from now on.
pub(super) fn start() {
    CAPTURED.get_or_init(Mutex::default);
}

/// Keeps a line of the log that belongs to a request, if this is the server of a session.
pub fn line(request: &str, line: &[u8]) {
    if let Some(mut captured) = captured() {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        keep(&mut captured.lines, LINES, (request.to_owned(), line));
    }
}

/// Keeps a panic in a request, likewise.
pub fn panicked(request: &str, panic: Panic) {
    if let Some(mut captured) = captured() {
        keep(&mut captured.panics, PANICS, (request.to_owned(), panic));
    }
}

/// Whether anything is kept.
#[must_use]
pub fn is_on() -> bool {
    CAPTURED.get().is_some()
}

/// What is known of a request.
pub(super) fn of(request: &str) -> (Vec<String>, Option<Panic>) {
    let Some(captured) = captured() else {
        return (Vec::new(), None);
    };
    let lines = captured.lines.iter().filter(|(id, _)| id == request);
    let mut panics = captured.panics.iter().filter(|(id, _)| id == request);
    let lines = lines.map(|(_, line)| line.clone()).collect();
    (lines, panics.next_back().map(|(_, panic)| panic.clone()))
}

fn keep<T>(kept: &mut VecDeque<T>, most: usize, new: T) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(new);
}

fn captured() -> Option<MutexGuard<'static, Captured>> {
    Some(
        CAPTURED
            .get()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    )
}

/// None in a server that is not of a session.
static CAPTURED: OnceLock<Mutex<Captured>> = OnceLock::new();

/// How many lines are kept, of all requests together.
const LINES: usize = 1000;

/// How many panics.
const PANICS: usize = 50;
