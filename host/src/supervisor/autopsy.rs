//! What ended a worker: from its exit status, what its handlers wrote down, and what its threads were doing, to who is to
//! blame and where in the code that was.
//!
//! [`examine`] looks at a worker that died, [`examine_hung`] at one that was ended because it made no progress. Both are
//! pure and take no time; [`Death::locate`] reads the staged copies for the names in [`place`]. Blame is from evidence, in this order: what was written down
//! as the worker died; a load under way, if it is the only one; the only app that threads were in; an app in its probation, if it is the
//! only one. Nobody is blamed for a signal that somebody else has sent.

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
    blame::{Blame, Reason},
    death::Death,
};
use super::process::Ended;
use crate::scoreboard::{BoardSnapshot, Crash, ThreadState};

/// What is known of a worker that died.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// How it ended.
    pub status: Ended,
    /// What its scoreboard says.
    pub board: &'a BoardSnapshot,
    /// Which apps it was told to load, and has not loaded.
    pub loading: &'a [Generation],
    /// Which of its apps are in their probation.
    pub probation: &'a [Generation],
    /// The end of what it printed to stderr.
    pub last_words: &'a str,
    /// Whether the kernel has killed it for want of memory, as far as can be told: see [`oom`].
    pub out_of_memory: bool,
}

/// A load of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// The app's name.
    pub app: String,
    /// Which load of it.
    pub number: u64,
}

impl From<&(String, u64)> for Generation {
    fn from((app, number): &(String, u64)) -> Self {
        Self {
            app: app.clone(),
            number: *number,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} generation {}", self.app, self.number)
    }
}

/// What ended a worker, and who is to blame.
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

/// Where a worker was that was ended because its threads made no progress for `timeout`. `dumps` are where its threads were, when
/// they could say.
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
            reason: Reason::Hung,
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
    // A thread's clock is right to a second.
    let limit = timeout.saturating_sub(Duration::from_secs(2));
    thread.work.as_ref().is_some_and(|work| work.lasts >= limit)
}

/// What was written down of the end that the status tells of.
fn record_of<'a>(evidence: &Evidence<'a>) -> Option<&'a Crash> {
    let board = evidence.board;
    let Some(signal) = status::signal(evidence.status) else {
        return board.exit.as_ref();
    };
    let of_signal = board.crashes.iter().find(|crash| crash.signal == signal);
    // What std says of a full stack turns SIGSEGV into SIGABRT.
    of_signal.or_else(|| board.crashes.first())
}
