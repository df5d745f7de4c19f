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
    worker::load::LoadError,
};
use rustix::process::Signal;

impl Supervisor {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => self.ask_report(ReportReply::Apps(reply)),
            Command::Workers(reply) => self.ask_report(ReportReply::Workers(reply)),
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
            Command::Reload(name, reply) => self.ask_reload(name, reply),
            Command::Rollback(name, reply) => self.ask_rollback(name, reply),
            Command::SetLevel(directives, reply) => self.set_level(directives, reply),
            Command::Reopen => self.fleet.send_all(&Order::Reopen),
            Command::Recycle(worker, reply) => self.ask_recycle(worker, reply),
            Command::Upgrade(path, reply) => self.upgrade(path, reply),
            Command::Dump(reply) => {
                let dumps = self.fleet.dump_all();
                tokio::spawn(async move {
                    for dump in dumps {
                        // A worker that has ended says nothing.
                        let _ = dump.await;
                    }
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

    /// Handles a command while the server stops. Loads and changes are refused; reports and levels still
    /// work.
    pub(super) fn last_command(&mut self, command: Command) {
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
            Command::Configure(..) | Command::Upgrade(..) => {}
            command => self.command(command),
        }
    }

    /// Reads the app's library and then loads it. Crashes of its content are forgotten, because the
    /// operator asks for another try.
    fn ask_reload(&mut self, name: String, reply: Reply) {
        let library = match self.apps.get(&name) {
            Some(app) => app.library.clone(),
            None => return self.reply_not_found(name, reply),
        };
        self.lift_aside(&name);
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

    /// Reads the private copy of the previous library and then loads it.
    fn ask_rollback(&mut self, name: String, reply: Reply) {
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

    /// Rolls an app back to the library that served before, after that library was read. Its current
    /// settings apply, so its mounts may have a new owner: then the rollback fails.
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
        let request = examined.and_then(|candidate| {
            let facts = LibraryInfo::of(&candidate);
            let spec = self.settings.spec(name, &facts);
            match self.taken(name, &spec.mounts) {
                Some(taken) => Err(candidate.rejected(LoadError::Taken(Box::new(taken)))),
                None => Ok(LoadRequest {
                    spec,
                    source: LibrarySource::Candidate(candidate.into()),
                    reason: LoadReason::Rollback,
                    reply_id: Some(reply_id),
                }),
            }
        });
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        match request {
            Ok(request) => {
                let actions = app.request_load(request);
                self.apply(name, actions);
            }
            Err(rejected) => {
                let failure = LoadFailure::new(&library, rejected.hash, &rejected.error);
                let error = failure.error.clone();
                app.report_failure(failure);
                self.answer(reply_id, Err(CommandError::Failed(error)));
            }
        }
    }

    /// Returns the first of `mounts` that another app owns.
    fn taken(&self, name: &str, mounts: &[Arc<str>]) -> Option<TakenError> {
        let others = self.apps.values().filter(|app| app.name != name);
        for other in others {
            let has = other.current().mounts;
            if let Some(mount) = mounts.iter().find(|mount| has.contains(mount)) {
                return Some(TakenError::Mount {
                    app: name.to_owned(),
                    mount: mount.clone(),
                    by: format!("{} ({})", other.name, other.library.display()),
                });
            }
        }
        None
    }

    /// Answers that the app does not exist, with the names of those that do.
    fn reply_not_found(&self, name: String, reply: Reply) {
        let known: Vec<_> = self.apps.keys().cloned().collect();
        let known = known.join(", ");
        // The requester may have disconnected.
        let _ = reply.send(Err(CommandError::NotFound { name, known }));
    }

    /// Keeps the reply channel of an operator until the load is over.
    pub(super) fn register_reply(&mut self, reply: Reply) -> ReplyId {
        self.last_reply_id += 1;
        self.replies.insert(self.last_reply_id, reply);
        self.last_reply_id
    }
}
