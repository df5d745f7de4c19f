//! Watches one worker process until the process has exited, and kills the process if a thread makes no progress.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};

use super::{EventSender, WorkerEvent, WorkerExit, dump, progress};
use crate::{
    scoreboard::Scoreboard,
    supervisor::{
        autopsy::oom,
        output_tail::OutputTail,
        process::{Child, ChildExit},
    },
};

/// A request to the task that watches a process.
#[derive(Debug)]
pub enum WatchRequest {
    /// Send the signal to the process.
    Kill(Signal),
    /// Log the backtraces of the threads of the process. The answer is sent when the lines are written.
    Dump(oneshot::Sender<()>),
}

/// The state of the task that watches a worker process.
pub(super) struct ProcessWatch {
    pub(super) child: Child,
    pub(super) output: OutputTail,
    pub(super) board: Scoreboard,
    pub(super) timeout: Duration,
    pub(super) events: EventSender,
}

impl ProcessWatch {
    /// Waits until the process has exited, and reports the exit with the evidence for an autopsy. Kills the process on
    /// request, or if a thread makes no progress.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<WatchRequest>) {
        let pid = self.child.pid();
        // The counter is read before and after the life of the process, because the exit status does not show whether a
        // SIGKILL came from the out-of-memory killer.
        let killed_before = oom::kills();
        let mut hang_dumps = None;
        let status = loop {
            // Each iteration needs a new future. A request drops the old one, which loses nothing, because the
            // scoreboard knows how long each thread has been in an app.
            let stuck = progress::wait_until_stuck(pid, &self.board, self.timeout);
            tokio::select! {
                status = self.child.wait() => break status.map_err(|error| error.to_string()),
                Some(request) = requests.recv() => match request {
                    WatchRequest::Kill(signal) => {
                        // A failure means that the process has exited at this moment.
                        let _ = self.child.kill(signal);
                    }
                    WatchRequest::Dump(reply) => {
                        let lines = dump::log_threads(self.events.worker, pid, &self.board).await;
                        // The lines are written in another task, so that the watch continues.
                        tokio::spawn(async move {
                            if let Some(lines) = lines {
                                let _ = lines.await;
                            }
                            // The caller may have stopped waiting.
                            let _ = reply.send(());
                        });
                    }
                },
                // The loop continues after the kill, until the exit of the process is reported.
                dumps = stuck, if hang_dumps.is_none() => {
                    hang_dumps = Some(dumps);
                    let _ = self.child.kill(Signal::KILL);
                }
            }
        };
        let is_killed = matches!(
            status,
            Ok(ChildExit::Signaled {
                signal: libc::SIGKILL,
                ..
            })
        );
        let last_words = self.output.finish(OUTPUT_TIMEOUT).await;
        // The scoreboard is read after the exit, so that the snapshot contains the record of a crash.
        self.events.send(WorkerEvent::Exited(Box::new(WorkerExit {
            pid: Some(pid),
            status,
            last_words,
            board: self.board.snapshot(),
            hang_dumps,
            out_of_memory: is_killed && oom::kills() > killed_before,
        })));
    }
}

/// How long the pipes of a worker are read after its exit, because a child of the worker may hold them open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(200);
