//! The autopsy of a worker: how it died, which app is to blame, and where in the code it happened.
//!
//! [`examine`] looks at a worker that died, [`examine_hung`] at one that was killed because it made no progress.
//! Both are pure and fast. [`Death::locate`] is slow: it reads symbols from the private copies ([`place`]).
//!
//! Evidence is tried in this order, and the first that points to one app decides:
//!
//! 1. the crash record that the worker's signal handler wrote,
//! 2. the only load that was inside a library's code,
//! 3. the only app in which threads were working,
//! 4. the only app on probation.
//!
//! No app is blamed for a signal that another process sent, such as SIGKILL. An app that is blamed by
//! mistake would be put aside although it is good, so several suspects mean no blame.

mod blame;
mod death;
pub mod oom;
pub mod place;
mod status;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use self::blame::{generation, recorded, request_of, suspected};
pub use self::{
    blame::{Blame, BlameReason},
    death::Death,
};
use super::process::ChildExit;
use crate::scoreboard::{BoardSnapshot, Crash, ThreadState};

/// The evidence about a dead worker.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The exit status of its process.
    pub status: ChildExit,
    /// The last content of its scoreboard.
    pub board: &'a BoardSnapshot,
    /// The loads that were inside a library's code.
    pub loading: &'a [GenerationId],
    /// The apps that are on probation.
    pub probation: &'a [GenerationId],
    /// The last lines that it printed.
    pub last_words: &'a str,
    /// Whether the kernel probably killed it because memory ran out: see [`oom`].
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

/// Returns how a worker died, and which app is to blame.
#[must_use]
pub fn examine(evidence: &Evidence<'_>) -> Death {
    let board = evidence.board;
    let record = record_of(evidence);
    let mut death = Death::new(board, status::describe(evidence, record));
    if let Some(record) = record {
        death.tell(record);
        death.blame = recorded(board, record);
    }
    let is_known = death.blame.is_some() || status::is_from_outside(evidence, record);
    if !is_known {
        death.blame = suspected(evidence, &death.suspects);
        if death.request.is_none()
            && let Some(blame) = &death.blame
        {
            death.request = request_of(board, &blame.generation);
        }
    }
    death
}

/// Returns where a worker hung that was killed because a thread made no progress for `timeout`. `dumps` has
/// the backtraces of its threads, as far as the threads could answer. The thread that is stuck for the
/// longest time decides.
#[must_use]
pub fn examine_hung(board: &BoardSnapshot, dumps: &[Crash], timeout: Duration) -> Death {
    let mut stuck: Vec<&ThreadState> = board
        .threads
        .iter()
        .filter(|thread| is_stuck(thread, timeout))
        .collect();
    stuck.sort_by_key(|thread| std::cmp::Reverse(thread.work.as_ref().map(|work| work.lasts)));
    let mut death = Death::new(board, format!("no progress for {timeout:?}"));
    let Some(first) = stuck.first() else {
        return death;
    };
    death.thread = Some(first.name.clone());
    if let Some(work) = &first.work {
        death.blame = generation(work).map(|generation| Blame {
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

fn is_stuck(thread: &ThreadState, timeout: Duration) -> bool {
    // The scoreboard's clock is exact to a second, and the dump was made a moment before the snapshot.
    let limit = timeout.saturating_sub(Duration::from_secs(2));
    thread.work.as_ref().is_some_and(|work| work.lasts >= limit)
}

/// Returns the crash record that belongs to the exit status: that of the signal, or that of a call of `exit`.
fn record_of<'a>(evidence: &Evidence<'a>) -> Option<&'a Crash> {
    let board = evidence.board;
    let Some(signal) = status::signal(evidence.status) else {
        return board.exit.as_ref();
    };
    let of_signal = board.crashes.iter().find(|crash| crash.signal == signal);
    // After a stack overflow std's handler aborts, so a record of SIGSEGV belongs to a death by SIGABRT.
    of_signal.or_else(|| board.crashes.first())
}
