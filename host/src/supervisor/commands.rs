//! Handles the commands of operators.

use std::sync::Arc;

use super::{
    Command, Reply, Supervisor, TaskOutcome,
    app::{LibrarySource, LoadReason, LoadRequest, ReplyId},
    catalog::{AppSettings, LibraryInfo, TakenError},
    error::CommandError,
    libraries::{self, ReadPurpose},
    outcome::LoadFailure,
    queries::ReportReply,
};
use crate::{
    folder::candidate::{Candidate, Rejected},
    orders::Order,
};
use rustix::process::Signal;

impl Supervisor {
    /// Handles a command of an operator.
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => self.request_report(ReportReply::Apps(reply)),
            Command::Workers(reply) => self.request_report(ReportReply::Workers(reply)),
            Command::Scale(scale, reply) => {
                // The requester may have disconnected.
                let _ = reply.send(self.scale(scale));
            }
            Command::Deploy(upload, reply) => self.deploy(*upload, reply),
            Command::Configure(mounts, apps) => {
                self.settings = AppSettings { mounts, apps };
                self.checks_unknown_apps = true;
                self.libraries.mark_changed();
            }
            Command::Reload(name, reply) => self.start_reload(name, reply),
            Command::Rollback(name, reply) => self.start_rollback(name, reply),
            Command::SetLevel(directives, reply) => self.set_level(directives, reply),
            Command::Reopen => self.fleet.send_all(&Order::Reopen),
            Command::Recycle(worker, reply) => self.recycle_for_operator(worker, reply),
            Command::Upgrade(path, reply) => self.upgrade(path, reply),
            Command::Dump(reply) => {
                let dumps = self.fleet.dump_all();
                // The wait runs in its own task, because the supervisor must not block.
                tokio::spawn(async move {
                    for dump in dumps {
                        // An error means that the worker has exited or has no process, so it writes no lines.
                        let _ = dump.await;
                    }
                    // The requester may have disconnected.
                    let _ = reply.send(());
                });
            }
            Command::Kill(reply) => {
                self.fleet.kill_all(Signal::KILL);
                // The requester may have disconnected.
                let _ = reply.send(());
            }
        }
    }

    /// Handles a command while the server stops. Commands that load or change apps or workers are refused. Reports and
    /// changes of the log level still work.
    pub(super) fn handle_command_while_stopping(&mut self, command: Command) {
        match command {
            Command::Reload(_, reply) | Command::Rollback(_, reply) => {
                // The requester may have disconnected.
                let _ = reply.send(Err(CommandError::Stopping));
            }
            Command::Scale(_, reply) => {
                let _ = reply.send(Err(CommandError::Stopping));
            }
            Command::Deploy(_, reply) => {
                let _ = reply.send(Err(CommandError::Stopping));
            }
            // The dropped reply of an upgrade tells the requester that the host stops.
            Command::Configure(..) | Command::Upgrade(..) => {}
            command => self.handle_command(command),
        }
    }

    /// Starts to read the app's library. The load begins when the library was read. Earlier crashes of the app are
    /// forgotten, because the operator requests another try.
    fn start_reload(&mut self, name: String, reply: Reply) {
        let library = match self.apps.get(&name) {
            Some(app) => app.library.clone(),
            None => return self.reply_not_found(name, reply),
        };
        self.forget_crashes(&name);
        let reply_id = self.register_reply(reply);
        let read = libraries::read(
            library,
            ReadPurpose::Reload {
                app: name,
                reply_id,
            },
        );
        self.tasks
            .spawn(async move { TaskOutcome::Read(read.await) });
    }

    /// Starts to read the private copy of the previous library. The load begins when the copy was read.
    fn start_rollback(&mut self, name: String, reply: Reply) {
        let Some(app) = self.apps.get(&name) else {
            return self.reply_not_found(name, reply);
        };
        let Some(previous) = &app.previous else {
            // The requester may have disconnected.
            let _ = reply.send(Err(CommandError::NoPrevious(name)));
            return;
        };
        let copy = previous.copy.clone();
        let reply_id = self.register_reply(reply);
        let read = libraries::read(
            copy,
            ReadPurpose::Rollback {
                app: name,
                reply_id,
            },
        );
        self.tasks
            .spawn(async move { TaskOutcome::Read(read.await) });
    }

    /// Rolls an app back to the library that served before, after that library was read. The app gets its current
    /// settings. If one of the resulting mounts belongs to another app by now, the rollback fails.
    pub(super) fn roll_back(
        &mut self,
        name: &str,
        reply_id: ReplyId,
        examined: Result<Candidate, Rejected>,
    ) {
        let Some(app) = self.apps.get(name) else {
            return self.answer(reply_id, Err(CommandError::Superseded));
        };
        let library = app.library.clone();
        let rejected =
            |rejected: Rejected| LoadFailure::new(&library, rejected.hash, &rejected.error);
        let request = examined.map_err(rejected).and_then(|candidate| {
            let facts = LibraryInfo::of(&candidate);
            let spec = self.settings.spec(name, &facts);
            match self.mount_conflict(name, &spec.mounts) {
                Some(taken) => {
                    let hash = Some(candidate.hash());
                    Err(LoadFailure::mount_taken(&library, hash, &taken))
                }
                None => Ok(LoadRequest {
                    spec,
                    source: LibrarySource::Candidate(candidate.into()),
                    reason: LoadReason::Rollback,
                    reply_id: Some(reply_id),
                }),
            }
        });
        // Looked up again, because the checks above borrow all apps.
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        match request {
            Ok(request) => {
                let actions = app.request_load(request);
                self.apply(name, actions);
            }
            Err(failure) => {
                let error = failure.error.clone();
                app.report_failure(failure);
                self.answer(reply_id, Err(CommandError::Failed(error)));
            }
        }
    }

    /// Returns the error for the first of `mounts` that belongs to an app other than `name`, or `None` if all are free.
    fn mount_conflict(&self, name: &str, mounts: &[Arc<str>]) -> Option<TakenError> {
        let others = self.apps.values().filter(|app| app.name != name);
        for other in others {
            let other_mounts = other.current().mounts;
            if let Some(mount) = mounts.iter().find(|mount| other_mounts.contains(mount)) {
                return Some(TakenError::Mount {
                    app: name.to_owned(),
                    mount: mount.clone(),
                    by: format!("{} ({})", other.name, other.library.display()),
                });
            }
        }
        None
    }

    /// Answers that no app has this name. The answer lists the names of all apps.
    fn reply_not_found(&self, name: String, reply: Reply) {
        let known: Vec<_> = self.apps.keys().cloned().collect();
        let known = known.join(", ");
        // The requester may have disconnected.
        let _ = reply.send(Err(CommandError::NotFound { name, known }));
    }

    /// Stores the reply channel of an operator until the load has ended. Returns the number of the reply.
    pub(super) fn register_reply(&mut self, reply: Reply) -> ReplyId {
        self.last_reply_id += 1;
        self.replies.insert(self.last_reply_id, reply);
        self.last_reply_id
    }
}
