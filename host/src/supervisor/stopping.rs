//! The end of the server: all workers are told to stop, and killed if they take too long.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{sync::mpsc, time};
use tracing::warn;

use super::{AskError, Command, Done, Supervisor, app::WorkerId, workers::Event};
use crate::orders::Notice;

impl Supervisor {
    /// Ends all workers. A process that does not end in time is killed.
    pub(super) async fn end(
        mut self,
        patience: Duration,
        events: &mut mpsc::UnboundedReceiver<(WorkerId, Event)>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        if let Some(workers) = &mut self.workers {
            // Who connects from now on is refused.
            workers.listeners.clear();
        }
        for reply in std::mem::take(&mut self.asks).into_values() {
            // Who asked may be gone.
            let _ = reply.send(Err(AskError::Stopping));
        }
        self.fleet.stop_all(patience);
        let is_over = time::timeout(patience + LAST, self.ended(events, commands)).await;
        if is_over.is_err() {
            warn!("Workers did not end in time, and are killed");
            self.fleet.kill_all(Signal::KILL);
            let _ = time::timeout(LAST, self.ended(events, commands)).await;
        }
        let store = Arc::clone(&self.store);
        let removed = tokio::task::spawn_blocking(move || store.remove()).await;
        if let Ok(Err(error)) = removed {
            let error = &error as &dyn std::error::Error;
            warn!(error, "Cannot remove the copies of libraries");
        }
    }

    /// Waits until all workers have ended. What operators ask meanwhile is answered.
    async fn ended(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<(WorkerId, Event)>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        while !self.fleet.is_empty() {
            tokio::select! {
                Some((worker, event)) = events.recv() => match event {
                    Event::Notice(Notice::Stopped) if self.workers.is_none() => {
                        self.fleet.remove(worker);
                    }
                    Event::Notice(notice @ (Notice::Report { .. } | Notice::InForce { .. })) => {
                        self.notice(worker, notice);
                    }
                    Event::Notice(_) => {}
                    Event::Gone(gone) => self.gone_at_last(worker, *gone),
                },
                Some(command) = commands.recv() => self.last_command(command),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(Done::ReportTimedOut(number)) = done {
                        self.report_timed_out(number);
                    }
                }
            }
        }
    }
}

/// How much longer than their requests workers may take to end.
const LAST: Duration = Duration::from_secs(2);
