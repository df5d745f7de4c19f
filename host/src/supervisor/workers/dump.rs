//! Logs the backtraces of a worker's threads, before the SIGQUIT of an operator ends the worker.

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use tokio::task;
use tracing::warn;

use super::progress;
use crate::{
    scoreboard::{Scoreboard, ThreadReport},
    supervisor::{
        app::WorkerId,
        autopsy::symbols::{OpenFiles, Symbols},
    },
};

/// Requests the backtraces of all threads of a process, and logs one line for each thread. Threads that are in an app
/// come first. Returns a task when the threads have answered, or `None` if `process` is not a process number. The task
/// writes the lines, which takes up to some seconds for libraries with full debug information.
pub(super) async fn log_threads(
    worker: WorkerId,
    process: i32,
    board: &Scoreboard,
) -> Option<task::JoinHandle<()>> {
    let mut dumps = progress::collect_dumps(Pid::from_raw(process)?, board).await;
    dumps.sort_by_key(|dump| dump.work.is_none());
    let apps = board.snapshot().apps.into_iter();
    let copies: Vec<_> = apps.map(|app| app.copy).collect();
    Some(task::spawn_blocking(move || {
        write_lines(worker, &dumps, &copies)
    }))
}

/// Logs one line for each backtrace. `copies` are the private copies of the worker's apps. Blocks while it reads
/// symbols.
fn write_lines(worker: WorkerId, dumps: &[ThreadReport], copies: &[PathBuf]) {
    let files = OpenFiles::default();
    let mut symbols = Symbols::new(&files);
    let copies: Vec<&Path> = copies.iter().map(PathBuf::as_path).collect();
    for dump in dumps {
        let frames = symbols.frames(&dump.frames, &copies);
        let frames: Vec<_> = frames
            .iter()
            .take(MAX_FRAMES)
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

/// How many frames of each thread are logged, the innermost first.
const MAX_FRAMES: usize = 8;
