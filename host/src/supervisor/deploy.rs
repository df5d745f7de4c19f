//! A deployment: an uploaded library is loaded first, and is moved to its place in the plugins folder after it serves.
//!
//! The place in the folder never contains a library that did not start. So a later start of the server does not load a
//! broken library. When the watcher reports the new file, the content already serves and is not loaded again.

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
    /// The library in the plugins folder, under a hidden name. The watcher ignores hidden files.
    pub file: TempPath,
    /// The library's content, read and checked.
    pub candidate: Candidate,
    /// The file name for the library if the plugin has no file in the folder yet.
    pub name: String,
}

/// The report of a successful deployment.
#[derive(Clone, Debug, Serialize)]
pub struct DeployReport {
    /// The plugin.
    pub plugin: String,
    /// The path of the library in the plugins folder.
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

/// A deployment whose loads have ended.
#[derive(Debug)]
pub(super) struct Deployment {
    /// The uploaded file, under its hidden name. Dropping the value removes the file.
    file: TempPath,
    /// The path to which the file is moved on success.
    target: PathBuf,
    plugin: String,
    /// The facts about the target file before the deployment. They are restored after a failure.
    known_before: KnownLibrary,
    /// The outcome for each app, by name.
    loads: Vec<(String, Result<DeployOutcome, CommandError>)>,
    reply: oneshot::Sender<Result<DeployReport, CommandError>>,
}

impl Supervisor {
    /// Loads an uploaded library for all apps of its plugin.
    ///
    /// The library is registered under its target path before the file is moved to that path, so that the plan treats
    /// the library like any other. A background task collects the outcomes of the loads.
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
        let target = match self.target_path(&plugin, folder.join(name)) {
            Ok(target) => target,
            Err(reason) => {
                // The requester may have disconnected.
                let _ = reply.send(Err(CommandError::NotDeployed { plugin, reason }));
                return;
            }
        };
        // From here on the library is known by the path that it will have.
        candidate.path.clone_from(&target);
        let facts = LibraryInfo::of(&candidate);
        let known_before = self.libraries.save(&target);
        let candidate = self.libraries.add_plugin(target.clone(), candidate);
        let (mut reloads, mut waiting, mut loads) = (Vec::new(), Vec::new(), Vec::new());
        for app in self.settings.app_names(&plugin) {
            if let Some(unchanged) = self.unchanged(&app, &facts) {
                loads.push((app, Ok(unchanged)));
                continue;
            }
            self.forget_crashes(&app);
            // The load answers on this channel, as it does for the reload of an operator.
            let (sender, outcome) = oneshot::channel();
            waiting.push((app.clone(), outcome));
            reloads.push(ReloadRequest {
                app,
                reply_id: self.register_reply(sender),
                candidate: candidate.clone(),
            });
        }
        // The plan is made at once, even if other libraries are still being read.
        self.plan_for(reloads);
        self.tasks.spawn(async move {
            for (app, outcome) in waiting {
                let outcome = outcome.await.unwrap_or(Err(CommandError::Stopping));
                loads.push((app, outcome.map(Box::new).map(DeployOutcome::Loaded)));
            }
            TaskOutcome::Deployed(Box::new(Deployment {
                file,
                target,
                plugin,
                known_before,
                loads,
                reply,
            }))
        });
    }

    /// Returns the target path: the path of the plugin's current library, or `new` if the plugin has no library yet.
    /// Fails if `new` is the library of another plugin.
    fn target_path(&self, plugin: &str, new: PathBuf) -> Result<PathBuf, String> {
        let is_plugin =
            |library: &Library| matches!(library, Library::Plugin(facts) if facts.plugin == plugin);
        // The library of an app comes first, because the folder may contain several libraries of the plugin.
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

    /// Returns the outcome for an app that already serves the uploaded library with its current settings. Returns
    /// `None` if the app must be loaded.
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

    /// Completes a deployment after its loads have ended. If all apps were loaded, moves the file to its target. If any
    /// app failed, removes the file, and the next plan loads the library in the folder again for the other apps.
    pub(super) fn deployed(&mut self, deployment: Deployment) {
        let Deployment {
            file,
            target,
            plugin,
            known_before,
            loads,
            reply,
        } = deployment;
        let (apps, failures) = split_outcomes(loads);
        if !failures.is_empty() {
            let reason = failures.join("; ");
            error!(plugin, file = %target.display(), error = reason, "Not deployed, the plugins folder is as it was");
            self.libraries.restore(&target, known_before);
            // The requester may have disconnected.
            let _ = reply.send(Err(CommandError::NotDeployed { plugin, reason }));
            return;
        }
        // Moving a file can block on a slow disk.
        task::spawn_blocking(move || {
            let moved = move_file(file, &target);
            let file = target.display().to_string();
            let deployed = match moved {
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
            // The requester may have disconnected.
            let _ = reply.send(deployed);
        });
    }
}

/// Splits outcomes into successes and error texts. If the plugin has several apps, each error text names its app.
fn split_outcomes(
    loads: Vec<(String, Result<DeployOutcome, CommandError>)>,
) -> (Vec<DeployOutcome>, Vec<String>) {
    let are_several = loads.len() > 1;
    let (mut apps, mut failures) = (Vec::new(), Vec::new());
    for (name, load) in loads {
        match load {
            Ok(outcome) => apps.push(outcome),
            Err(error) if are_several => failures.push(format!("{name}: {error}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (apps, failures)
}

/// Moves a file to its target. Replaces an existing file at the target.
fn move_file(file: TempPath, target: &Path) -> io::Result<()> {
    file.persist(target).map_err(|failed| failed.error)
}
