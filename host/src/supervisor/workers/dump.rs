//! Where the threads of a worker are, told in the log before an operator's SIGQUIT ends the worker.

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use tokio::task;
use tracing::warn;

use super::progress;
use crate::{
    scoreboard::{Crash, Scoreboard},
    supervisor::{
        app::WorkerId,
        autopsy::place::{OpenFiles, Symbols},
    },
};

/// Asks the threads of a process where they are, and logs a line for each, first for those that are in an app. Returns once
/// the threads have answered; the returned task ends when all lines are written, which takes up to some seconds for
/// libraries with full debug information.
pub(super) async fn log(
    worker: WorkerId,
    process: i32,
    board: &Scoreboard,
) -> Option<task::JoinHandle<()>> {
    let mut dumps = progress::dumps(Pid::from_raw(process)?, board).await;
    dumps.sort_by_key(|dump| dump.work.is_none());
    let apps = board.snapshot().apps.into_iter();
    let copies: Vec<_> = apps.map(|app| app.copy).collect();
    Some(task::spawn_blocking(move || say(worker, &dumps, &copies)))
}

fn say(worker: WorkerId, dumps: &[Crash], copies: &[PathBuf]) {
    let files = OpenFiles::default();
    let mut symbols = Symbols::new(&files);
    let copies: Vec<&Path> = copies.iter().map(PathBuf::as_path).collect();
    for dump in dumps {
        let frames = symbols.frames(&dump.frames, &copies);
        let frames: Vec<_> = frames
            .iter()
            .take(FRAMES)
            .map(ToString::to_string)
            .collect();
        let work = dump.work.as_ref();
        let app = work.and_then(|work| work.app.as_ref());
        let request = work.and_then(|work| work.request.as_ref());
        warn!(
            worker,
            thread = dump.name,
            plugin = app.map(|app| &*app.app),
            generation = app.map(|app| app.generation),
            request = request.map(|request| &*request.id),
            method = request.map(|request| &*request.method),
            path = request.map(|request| &*request.path),
            at = frames.join(" < "),
            "A thread is here"
        );
    }
}

/// How many frames of a thread are told, the innermost first.
const FRAMES: usize = 8;
