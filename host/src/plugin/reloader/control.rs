//! What an operator asks of the reloader, and what they are told.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task,
};

use super::{App, Purpose, Reloader, Wanted, Why, reports::measured};
use crate::{
    config::{self, Mount},
    plugin::{
        load::{Candidate, LoadError, Rejected},
        report::{Proof, Report},
    },
};

/// Where the reloader is asked. A clone leads to the same reloader.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// A question, and who waits for the answer.
#[derive(Debug)]
pub enum Command {
    /// What is there?
    Report(oneshot::Sender<Report>),
    /// Load the app from its library again, even if that did not change.
    Reload(String, Reply),
    /// Load the library that served before.
    Rollback(String, Reply),
    /// Where apps are mounted, and the apps that the operator describes, from now on.
    Configure(Vec<Mount>, Vec<config::App>),
}

/// Who waits for a load.
pub(super) type Reply = oneshot::Sender<Result<Proof, AskError>>;

impl Handle {
    /// A handle, and where what is asked comes out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(16);
        (Self(sender), commands)
    }

    /// What is there.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn report(&self) -> Result<Report, AskError> {
        let (sender, report) = oneshot::channel();
        self.send(Command::Report(sender)).await?;
        let report = report.await.map_err(|_| AskError::Stopping)?;
        // Reading it takes a while when there are many maps.
        task::spawn_blocking(|| measured(report))
            .await
            .map_err(|_| AskError::Stopping)
    }

    /// Loads the app from its library again, as a new generation. Returns when the old one has
    /// finished what it had.
    ///
    /// # Errors
    ///
    /// When there is no such app, when it is not loaded, or when the host stops.
    pub async fn reload(&self, name: String) -> Result<Proof, AskError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Reload(name, sender)).await?;
        proof.await.map_err(|_| AskError::Superseded)?
    }

    /// Loads the library that served before, as a new generation. Returns as
    /// [`reload`](Self::reload).
    ///
    /// # Errors
    ///
    /// As there, and when none served before.
    pub async fn rollback(&self, name: String) -> Result<Proof, AskError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Rollback(name, sender)).await?;
        proof.await.map_err(|_| AskError::Superseded)?
    }

    /// Has apps be where the operator says now, with the configuration that they have now. Apps of which
    /// the same is said as before are left alone.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn configure(
        &self,
        mounts: Vec<Mount>,
        apps: Vec<config::App>,
    ) -> Result<(), AskError> {
        self.send(Command::Configure(mounts, apps)).await
    }

    async fn send(&self, command: Command) -> Result<(), AskError> {
        self.0.send(command).await.map_err(|_| AskError::Stopping)
    }
}

/// What was asked is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The load failed; what served, serves on.
    #[error("it was not loaded")]
    Failed(#[source] LoadError),
    /// No library served before the one that does.
    #[error("no other library of {0} served before, so there is none to go back to")]
    NoPrevious(String),
    /// There is no app of this name.
    #[error("there is no app {name:?}, expected one of: {known}")]
    NotFound {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The host stops.
    #[error("the host is stopping")]
    Stopping,
    /// Something newer took its place, or the app was removed.
    #[error("something newer took its place before it was loaded")]
    Superseded,
}

impl Reloader {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.report());
            }
            Command::Configure(mounts, apps) => self.configure(mounts, apps),
            Command::Reload(name, reply) => match self.find(&name) {
                Ok((name, app)) => {
                    let library = app.library.clone();
                    let purpose = Purpose::App {
                        name,
                        why: Why::Reload,
                        reply: Some(reply),
                    };
                    self.examine(library, purpose);
                }
                Err(error) => tell(Some(reply), Err(error)),
            },
            Command::Rollback(name, reply) => match self.find(&name) {
                Ok((name, _)) => self.roll_back_to_copy(name, Some(reply)),
                Err(error) => tell(Some(reply), Err(error)),
            },
        }
    }

    fn find(&self, name: &str) -> Result<(&'static str, &App), AskError> {
        let found = self.apps.get_key_value(name);
        found
            .map(|(&name, app)| (name, app))
            .ok_or_else(|| AskError::NotFound {
                name: name.to_owned(),
                known: self.apps.keys().copied().collect::<Vec<_>>().join(", "),
            })
    }

    /// Starts the library that served before from its copy.
    pub(super) fn roll_back_to_copy(&mut self, name: &'static str, reply: Option<Reply>) {
        let previous = self.apps.get(name).and_then(|app| app.previous.clone());
        match previous {
            Some(copy) => {
                let why = Why::Rollback;
                self.examine(copy, Purpose::App { name, why, reply });
            }
            None => tell(reply, Err(AskError::NoPrevious(name.to_owned()))),
        }
    }

    /// A library was read that is to be loaded for one app.
    pub(super) fn asked(
        &mut self,
        name: &'static str,
        why: Why,
        reply: Option<Reply>,
        examined: Result<Candidate, Rejected>,
    ) {
        let Some(app) = self.apps.get(name) else {
            return tell(reply, Err(AskError::Superseded));
        };
        let (plugin, library) = (app.plugin, app.library.clone());
        let checked = examined.and_then(|candidate| {
            let spec = self.spec(name, &candidate);
            match self.free(name, &spec.mounts, &library) {
                Ok(()) => Ok((candidate, spec)),
                Err(error) => Err(candidate.rejected(error)),
            }
        });
        match checked {
            Ok((candidate, spec)) if candidate.manifest.name == plugin => self.want(
                name,
                Wanted {
                    candidate: Arc::new(candidate),
                    spec,
                    why,
                    reply,
                },
            ),
            // Another plugin took the library's place: the watcher is about to tell.
            Ok(_) => tell(reply, Err(AskError::Superseded)),
            Err(Rejected { error, hash, .. }) => {
                self.failed(name, &library, hash, &error);
                tell(reply, Err(AskError::Failed(error)));
            }
        }
    }
}

/// Tells who asked, if somebody did and is still there.
pub(super) fn tell(reply: Option<Reply>, answer: Result<Proof, AskError>) {
    if let Some(reply) = reply {
        // It may be gone.
        let _ = reply.send(answer);
    }
}
