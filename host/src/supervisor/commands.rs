//! What an operator asks, and what they are told.

use std::sync::Arc;

use super::{
    Command, Done, Reply, Supervisor,
    app::{AskId, Source, Wanted, Why},
    asking::ReportTo,
    catalog::{Facts, Settings, Taken},
    error::AskError,
    libraries::{self, Purpose},
    outcome::Failure,
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
            Command::Report(reply) => self.ask_report(ReportTo::Apps(reply)),
            Command::Workers(reply) => self.ask_report(ReportTo::Workers(reply)),
            Command::Scale(scale, reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.scale(scale));
            }
            Command::Deploy(upload, reply) => self.deploy(*upload, reply),
            Command::Configure(mounts, apps) => {
                self.settings = Settings { mounts, apps };
                self.checks_strangers = true;
                self.libraries.touch();
            }
            Command::Reload(name, reply) => self.ask_reload(name, reply),
            Command::Rollback(name, reply) => self.ask_rollback(name, reply),
            Command::SetLevel(directives, reply) => self.set_level(directives, reply),
            Command::Reopen => self.fleet.send_all(&Order::Reopen),
            Command::Recycle(worker, reply) => self.ask_recycle(worker, reply),
            Command::Upgrade(path, reply) => self.upgrade(path, reply),
            Command::Kill(reply) => {
                self.fleet.kill_all(Signal::KILL);
                // Who asked may be gone.
                let _ = reply.send(());
            }
        }
    }

    /// What is asked while the server stops: nothing is loaded any more.
    pub(super) fn last_command(&mut self, command: Command) {
        match command {
            Command::Reload(_, reply) | Command::Rollback(_, reply) => {
                // Who asked may be gone.
                let _ = reply.send(Err(AskError::Stopping));
            }
            Command::Scale(_, reply) => {
                let _ = reply.send(Err(AskError::Stopping));
            }
            Command::Deploy(_, reply) => {
                let _ = reply.send(Err(AskError::Stopping));
            }
            Command::Configure(..) | Command::Upgrade(..) => {}
            command => self.command(command),
        }
    }

    fn ask_reload(&mut self, name: String, reply: Reply) {
        let library = match self.apps.get(&name) {
            Some(app) => app.library.clone(),
            None => return self.not_found(name, reply),
        };
        self.forgive(&name);
        let ask = self.ask(reply);
        let read = libraries::read(library, Purpose::Reload { app: name, ask });
        self.tasks.spawn(async move { Done::Read(read.await) });
    }

    fn ask_rollback(&mut self, name: String, reply: Reply) {
        let Some(app) = self.apps.get(&name) else {
            return self.not_found(name, reply);
        };
        let Some(previous) = &app.previous else {
            // Who asked may be gone.
            let _ = reply.send(Err(AskError::NoPrevious(name)));
            return;
        };
        let copy = previous.copy.clone();
        let ask = self.ask(reply);
        let read = libraries::read(copy, Purpose::Rollback { app: name, ask });
        self.tasks.spawn(async move { Done::Read(read.await) });
    }

    /// The library that served before was read: it is loaded with the settings of now.
    pub(super) fn roll_back(
        &mut self,
        name: &str,
        ask: AskId,
        examined: Result<Candidate, Rejected>,
    ) {
        let Some(app) = self.apps.get(name) else {
            return self.answer(ask, Err(AskError::Superseded));
        };
        let library = app.library.clone();
        let wanted = examined.and_then(|candidate| {
            let facts = Facts::of(&candidate);
            let spec = self.settings.spec(name, &facts);
            match self.taken(name, &spec.mounts) {
                Some(taken) => Err(candidate.rejected(LoadError::Taken(Box::new(taken)))),
                None => Ok(Wanted {
                    spec,
                    source: Source::Candidate(candidate.into()),
                    why: Why::Rollback,
                    ask: Some(ask),
                }),
            }
        });
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        match wanted {
            Ok(wanted) => {
                let actions = app.want(wanted);
                self.apply(name, actions);
            }
            Err(rejected) => {
                let failure = Failure::new(&library, rejected.hash, &rejected.error);
                let error = failure.error.clone();
                app.say_failed(failure);
                self.answer(ask, Err(AskError::Failed(error)));
            }
        }
    }

    /// A mount that another app has.
    fn taken(&self, name: &str, mounts: &[Arc<str>]) -> Option<Taken> {
        let others = self.apps.values().filter(|app| app.name != name);
        for other in others {
            let has = other.holding().mounts;
            if let Some(mount) = mounts.iter().find(|mount| has.contains(mount)) {
                return Some(Taken::Mount {
                    app: name.to_owned(),
                    mount: mount.clone(),
                    by: format!("{} ({})", other.name, other.library.display()),
                });
            }
        }
        None
    }

    fn not_found(&self, name: String, reply: Reply) {
        let known: Vec<_> = self.apps.keys().cloned().collect();
        let known = known.join(", ");
        // Who asked may be gone.
        let _ = reply.send(Err(AskError::NotFound { name, known }));
    }

    /// Keeps who waits for a load until the load is over.
    pub(super) fn ask(&mut self, reply: Reply) -> AskId {
        self.last_ask += 1;
        self.asks.insert(self.last_ask, reply);
        self.last_ask
    }
}
