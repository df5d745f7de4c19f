//! What an operator asks of the reloader, and what they are told.

use std::{path::Path, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task,
};

use super::{App, Purpose, Reloader, State, Wanted, Why};
use crate::{
    config::{self, Mount},
    plugin::{
        generation::Generation,
        load::{Candidate, LoadError, Rejected},
        process::{self, Footprint, Process},
        report::{AppReport, GenerationReport, Proof, Report, Retired},
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

    fn report(&self) -> Report {
        let apps = self.apps.iter();
        let apps = apps.map(|(&name, app)| self.app_report(name, app));
        let removed = self.removed.iter().map(|(&name, app)| AppReport {
            state: "removed".to_owned(),
            ..self.app_report(name, app)
        });
        let mut apps: Vec<_> = apps
            .chain(removed.filter(|app| !app.others.is_empty()))
            .collect();
        apps.sort_by_key(|app| app.name);
        Report {
            apps,
            refused: self
                .refused
                .values()
                .map(|refused| refused.failure.clone())
                .collect(),
            loads: self.budget.loads(),
            loads_left: 0,
            retired: Retired::default(),
            process: Process::default(),
            ended: self.ended.clone(),
            folder: self.store.folder().to_owned(),
            budget: Arc::clone(&self.budget),
        }
    }

    fn app_report(&self, name: &'static str, app: &App) -> AppReport {
        let mut others: Vec<_> = self
            .retiring
            .iter()
            .filter(|retiring| retiring.generation.name == name)
            .map(|retiring| {
                let mut report = GenerationReport::new(&retiring.generation, "draining");
                report.replaced = Some(retiring.since.elapsed());
                report
            })
            .collect();
        let serving = app.serving.as_deref();
        let is_quarantined = serving.is_some_and(|serving| serving.faults.are_too_many());
        let mut following = None;
        let state = match &app.state {
            State::Loading { progress, next, .. } => {
                following = next.as_ref().map(|next| next.spec.hash.short());
                format!("loading: {}", progress.step().name())
            }
            State::Probation { kept } => {
                others.extend(
                    kept.as_deref()
                        .map(|kept| GenerationReport::new(kept, "kept")),
                );
                "probation".to_owned()
            }
            State::Resting if is_quarantined => "quarantined".to_owned(),
            State::Resting if app.serving.is_none() => "failed".to_owned(),
            State::Resting => "serving".to_owned(),
        };
        AppReport {
            name,
            plugin: app.plugin,
            file: app.library.display().to_string(),
            mounts: app.mounts.iter().map(|mount| mount.to_string()).collect(),
            state,
            next: following,
            serving: serving.map(|serving| GenerationReport::new(serving, "serving")),
            took: app.took,
            others,
            retired: Retired::default(),
            last_error: app.last_error.clone(),
        }
    }
}

impl GenerationReport {
    fn new(generation: &Generation, state: &'static str) -> Self {
        Self {
            generation: generation.number,
            version: generation.version.clone(),
            hash: generation.spec.hash.short(),
            state,
            since: generation.since,
            replaced: None,
            in_flight: generation.app.in_flight(),
            requests: generation.app.requests(),
            errors: generation.faults.errors(),
            panics: generation.faults.panics(),
            footprint: Footprint::default(),
            copy: generation.copy.clone(),
        }
    }
}

/// The report, with what the system tells filled in.
fn measured(mut report: Report) -> Report {
    let footprints = process::footprints(&report.folder);
    let of = |copy: &Path| footprints.get(copy).copied().unwrap_or_default();
    for app in &mut report.apps {
        for generation in app.serving.iter_mut().chain(&mut app.others) {
            generation.footprint = of(&generation.copy);
        }
        let ended = report.ended.get(app.name).into_iter().flatten();
        app.retired = ended.map(|copy| of(copy)).collect();
    }
    let ended = report.ended.values().flatten();
    report.retired = ended.map(|copy| of(copy)).collect();
    report.loads_left = report.budget.left();
    report.process = Process::now();
    report
}

/// Tells who asked, if somebody did and is still there.
pub(super) fn tell(reply: Option<Reply>, answer: Result<Proof, AskError>) {
    if let Some(reply) = reply {
        // It may be gone.
        let _ = reply.send(answer);
    }
}
