//! The autopsy of a worker: why the worker died, which app is to blame, and where in the code the crash happened.
//!
//! [`examine`] analyses a worker that died. [`examine_hung`] analyses a worker that was killed because it made no
//! progress. Both are pure and fast. [`Death::locate`] is slow, because it reads symbols from the private copies
//! ([`symbols`]).
//!
//! The evidence is checked in this order. The first kind of evidence that names exactly one app decides:
//!
//! 1. the crash record that the worker's signal handler wrote,
//! 2. a load that was running the library's code, if no other load was,
//! 3. the app in which threads were working, if they worked in only one app,
//! 4. the app on probation, if only one app was on probation.
//!
//! No app is blamed for a signal that another process sent, such as SIGKILL. If several apps are suspects, none is
//! blamed, because an app that is blamed by mistake would be put aside although it is good.

mod blame;
mod death;
pub mod oom;
mod status;
pub mod symbols;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use self::blame::{blame_from_evidence, blame_from_record, generation_of, request_of};
pub use self::{
    blame::{Blame, BlameReason},
    death::Death,
};
use super::process::ChildExit;
use crate::scoreboard::{BoardSnapshot, ThreadReport, ThreadState};

/// The evidence about a dead worker.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The exit status of the process.
    pub status: ChildExit,
    /// The content of the worker's scoreboard after the exit.
    pub board: &'a BoardSnapshot,
    /// The loads that were running a library's code, from the notices of the worker.
    pub loading: &'a [GenerationId],
    /// The apps that are on probation.
    pub probation: &'a [GenerationId],
    /// The last lines that the worker printed.
    pub last_words: &'a str,
    /// Whether the kernel probably killed the worker because memory ran out: see [`oom`].
    pub out_of_memory: bool,
}

/// The name of an app and the number of its generation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GenerationId {
    /// The app's name.
    pub app: String,
    /// The generation's number.
    pub number: u64,
}

impl From<&(String, u64)> for GenerationId {
    fn from((app, number): &(String, u64)) -> Self {
        Self {
            app: app.clone(),
            number: *number,
        }
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} generation {}", self.app, self.number)
    }
}

/// Returns why a worker died, and which app is to blame.
#[must_use]
pub fn examine(evidence: &Evidence<'_>) -> Death {
    let board = evidence.board;
    let record = record_of(evidence);
    let mut death = Death::new(board, status::describe(evidence, record));
    if let Some(record) = record {
        death.copy_record(record);
        death.blame = blame_from_record(board, record);
    }
    let is_known = death.blame.is_some() || status::is_from_outside(evidence, record);
    if !is_known {
        death.blame = blame_from_evidence(evidence, &death.suspects);
        // Only a crash record names the thread that crashed. Without a record, the request is known only if the app was
        // handling a single one.
        if death.request.is_none()
            && let Some(blame) = &death.blame
        {
            death.request = request_of(board, &blame.generation);
        }
    }
    death
}

/// Returns the app and the code in which a worker hung. The worker was killed because a thread made no progress for
/// `timeout`. `dumps` contains the backtraces of those threads that could answer. If several threads are stuck, the
/// thread that is stuck for the longest time decides.
#[must_use]
pub fn examine_hung(board: &BoardSnapshot, dumps: &[ThreadReport], timeout: Duration) -> Death {
    let mut stuck: Vec<&ThreadState> = board
        .threads
        .iter()
        .filter(|thread| is_stuck(thread, timeout))
        .collect();
    stuck.sort_by_key(|thread| std::cmp::Reverse(thread.work.as_ref().map(|work| work.duration)));
    let mut death = Death::new(board, format!("no progress for {timeout:?}"));
    let Some(first) = stuck.first() else {
        return death;
    };
    death.thread = Some(first.name.clone());
    if let Some(work) = &first.work {
        death.blame = generation_of(work).map(|generation| Blame {
            generation,
            reason: BlameReason::Hung,
        });
        death.request.clone_from(&work.request);
    }
    let dump = dumps.iter().find(|dump| dump.thread == first.thread);
    if let Some(dump) = dump {
        death.addresses.clone_from(&dump.frames);
    }
    death
}

/// Returns whether a thread has worked for `timeout` without leaving its app.
fn is_stuck(thread: &ThreadState, timeout: Duration) -> bool {
    // The check that killed the worker has used the full timeout. The tolerance here is 2 s, because the scoreboard's
    // clock is exact to a second, and the snapshot was taken at another moment than that check.
    let limit = timeout.saturating_sub(Duration::from_secs(2));
    thread
        .work
        .as_ref()
        .is_some_and(|work| work.duration >= limit)
}

/// Returns the crash record that belongs to the exit status: the record of the signal, or the record of a call of
/// `exit`. Returns `None` if the worker's handlers wrote no record.
fn record_of<'a>(evidence: &Evidence<'a>) -> Option<&'a ThreadReport> {
    let board = evidence.board;
    let Some(signal) = status::signal(evidence.status) else {
        return board.exit.as_ref();
    };
    let of_signal = board.crashes.iter().find(|crash| crash.signal == signal);
    // After a stack overflow the record is of SIGSEGV and the death is by SIGABRT, because std's handler for SIGSEGV
    // aborts.
    of_signal.or_else(|| board.crashes.first())
}
