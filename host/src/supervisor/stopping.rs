//! The end of the server: all workers are told to stop, and killed if they take too long.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{sync::mpsc, time};
use tracing::warn;

use super::{Command, CommandError, Supervisor, TaskOutcome, app::WorkerId, workers::WorkerEvent};
use crate::orders::Notice;

impl Supervisor {
    /// Stops all workers, waits for them, and removes the private copies of libraries.
    ///
    /// A worker process that has not ended after `timeout` and [`EXIT_GRACE`] is killed. The supervisor
    /// itself must not hang here, because a service manager waits for its end.
    pub(super) async fn end(
        mut self,
        timeout: Duration,
        events: &mut mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        if let Some(workers) = &mut self.spawner {
            // Closing the last descriptors makes the kernel refuse new connections.
            workers.listeners.clear();
        }
        for reply in std::mem::take(&mut self.replies).into_values() {
            // The requester may have disconnected.
            let _ = reply.send(Err(CommandError::Stopping));
        }
        self.fleet.stop_all(timeout);
        let is_over = time::timeout(timeout + EXIT_GRACE, self.ended(events, commands)).await;
        if is_over.is_err() {
            warn!("Workers did not end in time, and are killed");
            self.fleet.kill_all(Signal::KILL);
            let _ = time::timeout(EXIT_GRACE, self.ended(events, commands)).await;
        }
        let store = Arc::clone(&self.store);
        let removed = tokio::task::spawn_blocking(move || store.remove()).await;
        if let Ok(Err(error)) = removed {
            let error = &error as &dyn std::error::Error;
            warn!(error, "Cannot remove the copies of libraries");
        }
    }

    /// Waits until all workers have ended. Commands that come meanwhile are still answered, because
    /// `host ctl` must not hang while the server stops.
    async fn ended(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        while !self.fleet.is_empty() {
            tokio::select! {
                Some((worker, event)) = events.recv() => match event {
                    WorkerEvent::Notice(Notice::Stopped) if self.spawner.is_none() => {
                        self.fleet.remove(worker);
                    }
                    WorkerEvent::Notice(notice @ (Notice::Report { .. } | Notice::InForce { .. })) => {
                        self.notice(worker, notice);
                    }
                    WorkerEvent::Notice(_) => {}
                    WorkerEvent::Exited(gone) => self.worker_exited_at_stop(worker, *gone),
                },
                Some(command) = commands.recv() => self.last_command(command),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(TaskOutcome::ReportTimedOut(number)) = done {
                        self.report_timed_out(number);
                    }
                }
            }
        }
    }
}

/// How long workers may take to exit after the time for their requests is over.
const EXIT_GRACE: Duration = Duration::from_secs(2);
