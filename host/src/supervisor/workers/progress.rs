//! Detects threads of a worker that make no progress, and collects the backtraces of all threads of a worker.

use std::{future, time::Duration};

use rustix::process::Pid;
use tokio::time;

use crate::{
    scoreboard::{BoardSnapshot, Scoreboard, ThreadReport, WorkKind},
    worker::crash::dump,
};

/// Waits until a thread has been in an app for `timeout` without leaving the app, and returns the backtraces of all
/// threads that can answer. A thread leaves the app when a future returns `Pending`, so only code that blocks or
/// computes is detected. Never returns if `timeout` is zero.
pub(super) async fn wait_until_stuck(
    process: i32,
    board: &Scoreboard,
    timeout: Duration,
) -> Vec<ThreadReport> {
    if timeout.is_zero() {
        return future::pending().await;
    }
    // A fraction of the timeout, so that the delay of the detection is small compared with the timeout.
    let check_interval = (timeout / 8).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL);
    loop {
        time::sleep(check_interval).await;
        if is_stuck(&board.snapshot(), timeout) {
            break;
        }
    }
    match Pid::from_raw(process) {
        Some(process) => collect_dumps(process, board).await,
        None => Vec::new(),
    }
}

/// Requests the backtraces of all threads of a process. Returns the backtraces when all threads have answered. After
/// half a second, returns only those of the threads that have answered.
pub(super) async fn collect_dumps(process: Pid, board: &Scoreboard) -> Vec<ThreadReport> {
    let requested = dump::request(process, board).unwrap_or_default();
    let mut dumps = board.dumps();
    for _ in 0..MAX_DUMP_CHECKS {
        if dumps.len() >= requested {
            break;
        }
        time::sleep(DUMP_CHECK_INTERVAL).await;
        dumps = board.dumps();
    }
    // A failure is ignored: without the mapped files the addresses cannot be turned into functions, but each backtrace
    // still contains the app of its thread.
    let _ = dump::find_files(process, &mut dumps);
    dumps
}

/// Returns whether a thread has been in a request for `timeout`. Loads, stops and handovers are not checked, because
/// they have their own timeouts.
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
    serving.any(|work| work.duration >= timeout)
}

/// The minimum and the maximum interval between two checks of a worker. The interval depends on the timeout.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often, and at which interval, the answers of the threads are counted.
const MAX_DUMP_CHECKS: u32 = 25;
const DUMP_CHECK_INTERVAL: Duration = Duration::from_millis(20);
