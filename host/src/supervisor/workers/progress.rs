//! Whether the threads of a worker make progress, and where they are when one does not.

use std::{future, time::Duration};

use rustix::process::Pid;
use tokio::time;

use crate::{
    scoreboard::{BoardSnapshot, Crash, Scoreboard, WorkKind},
    worker::crash::dump,
};

/// Waits until a thread of a process has been in an app for `timeout` without leaving it, as each poll that is pending does; then
/// returns where all of its threads are, as far as they say. Never, when `timeout` is zero.
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
    let Some(process) = Pid::from_raw(process) else {
        return Vec::new();
    };
    let asked = dump::ask(process, board).unwrap_or_default();
    let mut dumps = board.dumps();
    for _ in 0..LOOKS {
        if dumps.len() >= asked {
            break;
        }
        time::sleep(BETWEEN_DUMPS).await;
        dumps = board.dumps();
    }
    // Without the files the addresses say nothing, but who was stuck is known.
    let _ = dump::place(process, &mut dumps);
    dumps
}

/// Starts, stops and handovers have limits of their own.
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

/// How often a worker is looked at, at most and at least.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// How often, and how far apart, it is looked whether all threads have said where they are.
const LOOKS: u32 = 25;
const BETWEEN_DUMPS: Duration = Duration::from_millis(20);
