//! The watch over one worker process: until it has ended, or makes no progress.

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

/// What a watch is asked to do with its process.
#[derive(Debug)]
pub enum WatchRequest {
    /// Send the signal to the process.
    Kill(Signal),
    /// Log where the threads of the process are. The answer comes when the lines are written.
    Dump(oneshot::Sender<()>),
}

/// The watch over a worker process.
pub(super) struct ProcessWatch {
    pub(super) child: Child,
    pub(super) words: OutputTail,
    pub(super) board: Scoreboard,
    pub(super) timeout: Duration,
    pub(super) events: EventSender,
}

impl ProcessWatch {
    /// Reports the exit of the process. Kills the process on request, and when a thread makes no progress.
    ///
    /// The kernel's counter of out-of-memory kills is compared before and after, because the exit status of
    /// such a kill is that of any SIGKILL.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<WatchRequest>) {
        let pid = self.child.pid();
        let killed_before = oom::kills();
        let mut hung = None;
        let ended = loop {
            let stuck = progress::stuck(pid, &self.board, self.timeout);
            tokio::select! {
                ended = self.child.wait() => break ended.map_err(|error| error.to_string()),
                Some(request) = requests.recv() => match request {
                    WatchRequest::Kill(signal) => {
                        // The process may have exited at this moment.
                        let _ = self.child.kill(signal);
                    }
                    WatchRequest::Dump(reply) => {
                        let lines = dump::log(self.events.0, pid, &self.board).await;
                        tokio::spawn(async move {
                            if let Some(lines) = lines {
                                let _ = lines.await;
                            }
                            // The caller may have stopped waiting.
                            let _ = reply.send(());
                        });
                    }
                },
                dumps = stuck, if hung.is_none() => {
                    hung = Some(dumps);
                    let _ = self.child.kill(Signal::KILL);
                }
            }
        };
        let is_killed = matches!(
            ended,
            Ok(ChildExit::Signaled {
                signal: libc::SIGKILL,
                ..
            })
        );
        let last_words = self.words.finish(DRAIN_TIMEOUT).await;
        self.events.send(WorkerEvent::Exited(Box::new(WorkerExit {
            pid: Some(pid),
            ended,
            last_words,
            board: self.board.snapshot(),
            hung,
            out_of_memory: is_killed && oom::kills() > killed_before,
        })));
    }
}

/// How long to read the pipes of a dead worker. A child of the worker can hold them open.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
