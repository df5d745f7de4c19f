//! A deployment: an uploaded library is loaded first, and moved into the plugins folder once it serves.
//!
//! The folder never contains a library that did not start, so a later start of the server does not
//! fail because of it. When the watcher reports the new file, its content serves already and is not
//! loaded again.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::TempPath;
use tokio::{sync::oneshot, task};
use tracing::{error, info};

use super::{
    Supervisor, TaskOutcome,
    catalog::{Library, LibraryInfo},
    error::CommandError,
    libraries::KnownLibrary,
    outcome::ReloadReport,
    plans::ReloadRequest,
};
use crate::folder::candidate::Candidate;

/// An uploaded library.
#[derive(Debug)]
pub struct Upload {
    /// The library in the plugins folder under a hidden name, which the watcher leaves alone.
    pub file: TempPath,
    /// The library's content, read and checked.
    pub candidate: Candidate,
    /// The file name to use if the plugin has no file in the folder yet.
    pub name: String,
}

/// The report of a successful deployment.
#[derive(Clone, Debug, Serialize)]
pub struct DeployReport {
    /// The plugin.
    pub plugin: String,
    /// The library in the plugins folder.
    pub file: String,
    /// The outcome for each app of the plugin.
    pub apps: Vec<DeployOutcome>,
}

/// The outcome of a deployment for one app.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum DeployOutcome {
    /// The app was loaded.
    Loaded(Box<ReloadReport>),
    /// The app already served this library with these settings, and was not loaded again.
    Unchanged {
        /// The app.
        name: String,
        /// The generation that serves.
        unchanged_generation: u64,
        /// The plugin's version.
        version: String,
        /// The library's whole hash.
        hash: String,
    },
}

/// A deployment whose loads are over.
#[derive(Debug)]
pub(super) struct Deployment {
    file: TempPath,
    target: PathBuf,
    plugin: String,
    /// The facts about the target file before the deployment, to be restored after a failure.
    before: KnownLibrary,
    /// The outcome for each app, by name.
    loads: Vec<(String, Result<DeployOutcome, CommandError>)>,
    reply: oneshot::Sender<Result<DeployReport, CommandError>>,
}

impl Supervisor {
    /// Loads an uploaded library for all apps of its plugin.
    ///
    /// The library is registered under its target path before the file is there, so that the plan treats
    /// it like any other library. The outcomes are collected in a background task.
    pub(super) fn deploy(
        &mut self,
        upload: Upload,
        reply: oneshot::Sender<Result<DeployReport, CommandError>>,
    ) {
        let Upload {
            file,
            mut candidate,
            name,
        } = upload;
        let plugin = candidate.manifest.name.clone();
        let folder = file.parent().unwrap_or(Path::new(""));
        let target = match self.place(&plugin, folder.join(name)) {
            Ok(target) => target,
            Err(reason) => {
                // The requester may have disconnected.
                let _ = reply.send(Err(CommandError::NotDeployed { plugin, reason }));
                return;
            }
        };
        candidate.path.clone_from(&target);
        let facts = LibraryInfo::of(&candidate);
        let before = self.libraries.remember(&target);
        let candidate = self.libraries.add_plugin(target.clone(), candidate);
        let (mut reload, mut waiting, mut loads) = (Vec::new(), Vec::new(), Vec::new());
        for app in self.settings.names(&plugin) {
            if let Some(unchanged) = self.unchanged(&app, &facts) {
                loads.push((app, Ok(unchanged)));
                continue;
            }
            self.lift_aside(&app);
            let (sender, proof) = oneshot::channel();
            waiting.push((app.clone(), proof));
            reload.push(ReloadRequest {
                app,
                reply_id: self.register_reply(sender),
                candidate: candidate.clone(),
            });
        }
        self.plan_for(reload);
        self.tasks.spawn(async move {
            for (app, proof) in waiting {
                let proof = proof.await.unwrap_or(Err(CommandError::Stopping));
                loads.push((app, proof.map(Box::new).map(DeployOutcome::Loaded)));
            }
            TaskOutcome::Deployed(Box::new(Deployment {
                file,
                target,
                plugin,
                before,
                loads,
                reply,
            }))
        });
    }

    /// Returns the target path: that of the plugin's current library, or else `new`. Fails when another
    /// plugin owns `new`.
    fn place(&self, plugin: &str, new: PathBuf) -> Result<PathBuf, String> {
        let is_plugin =
            |library: &Library| matches!(library, Library::Plugin(facts) if facts.plugin == plugin);
        let serving = self.apps.values().find(|app| app.plugin == plugin);
        if let Some(app) = serving {
            return Ok(app.library.clone());
        }
        let mut known = self.libraries.known().iter();
        if let Some((path, _)) = known.find(|(_, library)| is_plugin(library)) {
            return Ok(path.clone());
        }
        match self.libraries.known().get(&new) {
            Some(Library::Plugin(facts)) => Err(format!(
                "{} is the plugin {}; give the file another name",
                new.display(),
                facts.plugin
            )),
            _ => Ok(new),
        }
    }

    /// Returns the outcome for an app that already serves the uploaded library with its current settings.
    fn unchanged(&self, app: &str, facts: &LibraryInfo) -> Option<DeployOutcome> {
        let spec = self.settings.spec(app, facts);
        let app = self.apps.get(app).filter(|app| app.loading().is_none())?;
        let serving = app.serving.as_ref()?;
        (serving.spec == spec).then(|| DeployOutcome::Unchanged {
            name: app.name.clone(),
            unchanged_generation: serving.generation,
            version: serving.version.clone(),
            hash: serving.spec.hash.to_string(),
        })
    }

    /// Completes a deployment after its loads. On success the file is moved to its target. If any app
    /// failed, the file is removed and the next plan brings the other apps back to the library in the folder.
    pub(super) fn deployed(&mut self, deployment: Deployment) {
        let Deployment {
            file,
            target,
            plugin,
            before,
            loads,
            reply,
        } = deployment;
        let (apps, failures) = split(loads);
        if !failures.is_empty() {
            let reason = failures.join("; ");
            error!(plugin, file = %target.display(), error = reason, "Not deployed, the plugins folder is as it was");
            // The next plan brings apps that did load the library back to the one in the folder.
            self.libraries.restore(&target, before);
            // The requester may have disconnected.
            let _ = reply.send(Err(CommandError::NotDeployed { plugin, reason }));
            return;
        }
        // Moving a file can block on a slow disk.
        task::spawn_blocking(move || {
            let placed = place(file, &target);
            let file = target.display().to_string();
            let deployed = match placed {
                Ok(()) => {
                    info!(plugin, file, "Deployed");
                    Ok(DeployReport { plugin, file, apps })
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    error!(
                        plugin,
                        file,
                        error = reason,
                        "Deployed, but the file is not in its place"
                    );
                    Err(CommandError::NotPlaced { file, reason })
                }
            };
            let _ = reply.send(deployed);
        });
    }
}

/// Splits outcomes into successes and error texts. Error texts name the app if there are several.
fn split(
    loads: Vec<(String, Result<DeployOutcome, CommandError>)>,
) -> (Vec<DeployOutcome>, Vec<String>) {
    let many = loads.len() > 1;
    let (mut apps, mut failures) = (Vec::new(), Vec::new());
    for (name, load) in loads {
        match load {
            Ok(outcome) => apps.push(outcome),
            Err(error) if many => failures.push(format!("{name}: {error}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (apps, failures)
}

/// Moves a file to its target, and replaces a file that is there.
fn place(file: TempPath, target: &Path) -> io::Result<()> {
    file.persist(target).map_err(|failed| failed.error)
}
