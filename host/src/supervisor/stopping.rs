//! The stop of the server: all workers get the order to stop, and are killed if they take too long.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{sync::mpsc, time};
use tracing::warn;

use super::{Command, CommandError, Supervisor, TaskOutcome, app::WorkerId, workers::WorkerEvent};
use crate::orders::Notice;

impl Supervisor {
    /// Stops all workers, waits for them, and removes the private copies of libraries.
    ///
    /// A worker process that has not exited after `timeout` and [`EXIT_GRACE`] is killed. The wait after the kill has a
    /// limit as well, because a service manager waits for the exit of the supervisor.
    pub(super) async fn stop(
        mut self,
        timeout: Duration,
        events: &mut mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        if let Some(spawner) = &mut self.spawner {
            // The kernel refuses new connections after the last descriptor of each socket is closed, here and in the
            // workers.
            spawner.listeners.clear();
        }
        // The loads that these operators wait for do not end any more.
        for reply in std::mem::take(&mut self.replies).into_values() {
            // The requester may have disconnected.
            let _ = reply.send(Err(CommandError::Stopping));
        }
        self.fleet.stop_all(timeout);
        let stopped = time::timeout(
            timeout + EXIT_GRACE,
            self.wait_for_workers(events, commands),
        )
        .await;
        if stopped.is_err() {
            warn!("Workers did not end in time, and are killed");
            self.fleet.kill_all(Signal::KILL);
            let _ = time::timeout(EXIT_GRACE, self.wait_for_workers(events, commands)).await;
        }
        let store = Arc::clone(&self.store);
        // Removed last, because running workers have the copies mapped.
        let removed = tokio::task::spawn_blocking(move || store.remove()).await;
        if let Ok(Err(error)) = removed {
            let error = &error as &dyn std::error::Error;
            warn!(error, "Cannot remove the copies of libraries");
        }
    }

    /// Waits until all workers have exited. Commands that arrive in the meantime are answered, because `host ctl` must
    /// not hang while the server stops.
    async fn wait_for_workers(
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
                        self.handle_notice(worker, notice);
                    }
                    // Loads, swaps and states have no effect any more.
                    WorkerEvent::Notice(_) => {}
                    WorkerEvent::Exited(exit) => self.worker_exited_while_stopping(worker, *exit),
                },
                Some(command) = commands.recv() => self.handle_command_while_stopping(command),
                Some(outcome) = self.tasks.join_next() => {
                    if let Ok(TaskOutcome::ReportTimedOut(number)) = outcome {
                        self.report_timed_out(number);
                    }
                }
            }
        }
    }
}

/// How long workers may take to exit after the time for their requests has ended, and again after they were killed.
const EXIT_GRACE: Duration = Duration::from_secs(2);
