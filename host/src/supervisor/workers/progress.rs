//! Detects threads of a worker that make no progress, and collects backtraces of all threads then.

use std::{future, time::Duration};

use rustix::process::Pid;
use tokio::time;

use crate::{
    scoreboard::{BoardSnapshot, Crash, Scoreboard, WorkKind},
    worker::crash::dump,
};

/// Waits until a thread has been in an app for `timeout` without leaving it, and then returns the backtraces of
/// all threads that answer. A future that returns `Pending` leaves the app, so only blocking code counts.
/// Never returns when `timeout` is zero.
pub(super) async fn stuck(process: i32, board: &Scoreboard, timeout: Duration) -> Vec<Crash> {
    if timeout.is_zero() {
        return future::pending().await;
    }
    let between_looks = (timeout / 8).clamp(SHORTEST, LONGEST);
    loop {
        time::sleep(between_looks).await;
        if is_stuck(&board.snapshot(), timeout) {
            break;
        }
    }
    match Pid::from_raw(process) {
        Some(process) => dumps(process, board).await,
        None => Vec::new(),
    }
}

/// Asks the threads of a process where they are, and returns what has been answered once all have, or after half a second.
pub(super) async fn dumps(process: Pid, board: &Scoreboard) -> Vec<Crash> {
    let asked = dump::ask(process, board).unwrap_or_default();
    let mut dumps = board.dumps();
    for _ in 0..LOOKS {
        if dumps.len() >= asked {
            break;
        }
        time::sleep(BETWEEN_DUMPS).await;
        dumps = board.dumps();
    }
    // Without the mapped files the addresses have no names, but the stuck app is still known.
    let _ = dump::place(process, &mut dumps);
    dumps
}

/// Returns whether a thread is stuck in a request. Loads, stops and handovers have timeouts of their own.
fn is_stuck(board: &BoardSnapshot, timeout: Duration) -> bool {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let mut serving = works.filter(|work| {
        matches!(
            work.kind,
            WorkKind::Request | WorkKind::Body | WorkKind::Drop
        )
    });
    serving.any(|work| work.lasts >= timeout)
}

/// The shortest and the longest interval between two checks of a worker.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// How often, and at which interval, to check whether all threads have answered.
const LOOKS: u32 = 25;
const BETWEEN_DUMPS: Duration = Duration::from_millis(20);
