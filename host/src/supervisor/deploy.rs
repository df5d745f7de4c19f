//! A deployment: a library is loaded first, and put into the plugins folder once it serves.
//!
//! The folder never has a library that did not start, so that a later start of the server does not
//! meet one. The watcher sees the file after that, and its content serves already.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::TempPath;
use tokio::{sync::oneshot, task};
use tracing::{error, info};

use super::{
    Done, Supervisor,
    catalog::{Facts, Library},
    error::AskError,
    libraries::Memory,
    outcome::Proof,
    plans::Asked,
};
use crate::folder::candidate::Candidate;

/// A library that is to be deployed.
#[derive(Debug)]
pub struct Upload {
    /// The library in the plugins folder under a hidden name, which the watcher leaves alone.
    pub file: TempPath,
    /// What is in it.
    pub candidate: Candidate,
    /// The name of the file, if the plugin has none in the folder yet.
    pub name: String,
}

/// What came of a deployment.
#[derive(Clone, Debug, Serialize)]
pub struct Deployed {
    /// The plugin.
    pub plugin: String,
    /// The library in the plugins folder.
    pub file: String,
    /// The apps that the plugin is.
    pub apps: Vec<Outcome>,
}

/// What came of a deployment for an app.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It was loaded.
    Loaded(Box<Proof>),
    /// The same library served already, and was not loaded again.
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
    /// What was known of the target before.
    before: Memory,
    /// What came of the load of each app.
    loads: Vec<(String, Result<Outcome, AskError>)>,
    reply: oneshot::Sender<Result<Deployed, AskError>>,
}

impl Supervisor {
    /// Loads a library as all apps that its plugin is.
    pub(super) fn deploy(
        &mut self,
        upload: Upload,
        reply: oneshot::Sender<Result<Deployed, AskError>>,
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
                // Who asked may be gone.
                let _ = reply.send(Err(AskError::NotDeployed { plugin, reason }));
                return;
            }
        };
        candidate.path.clone_from(&target);
        let facts = Facts::of(&candidate);
        let before = self.libraries.remember(&target);
        let candidate = self.libraries.learn(target.clone(), candidate);
        let (mut asked, mut waiting, mut loads) = (Vec::new(), Vec::new(), Vec::new());
        for app in self.settings.names(&plugin) {
            if let Some(unchanged) = self.unchanged(&app, &facts) {
                loads.push((app, Ok(unchanged)));
                continue;
            }
            self.forgive(&app);
            let (sender, proof) = oneshot::channel();
            waiting.push((app.clone(), proof));
            asked.push(Asked {
                app,
                ask: self.ask(sender),
                candidate: candidate.clone(),
            });
        }
        self.plan_for(asked);
        self.tasks.spawn(async move {
            for (app, proof) in waiting {
                let proof = proof.await.unwrap_or(Err(AskError::Stopping));
                loads.push((app, proof.map(Box::new).map(Outcome::Loaded)));
            }
            Done::Deployed(Box::new(Deployment {
                file,
                target,
                plugin,
                before,
                loads,
                reply,
            }))
        });
    }

    /// Where the library of a plugin belongs: in the place of the one that is there, or else at `new`.
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

    /// The generation of an app that serves already what is to be deployed.
    fn unchanged(&self, app: &str, facts: &Facts) -> Option<Outcome> {
        let spec = self.settings.spec(app, facts);
        let app = self.apps.get(app).filter(|app| app.loading().is_none())?;
        let serving = app.serving.as_ref()?;
        (serving.spec == spec).then(|| Outcome::Unchanged {
            name: app.name.clone(),
            unchanged_generation: serving.generation,
            version: serving.version.clone(),
            hash: serving.spec.hash.to_string(),
        })
    }

    /// The loads of a deployment are over: its file gets its name, or goes.
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
            // An app for which the library was loaded goes back by the next plan.
            self.libraries.restore(&target, before);
            // Who asked may be gone.
            let _ = reply.send(Err(AskError::NotDeployed { plugin, reason }));
            return;
        }
        // A disk may be slow.
        task::spawn_blocking(move || {
            let placed = place(file, &target);
            let file = target.display().to_string();
            let deployed = match placed {
                Ok(()) => {
                    info!(plugin, file, "Deployed");
                    Ok(Deployed { plugin, file, apps })
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    error!(
                        plugin,
                        file,
                        error = reason,
                        "Deployed, but the file is not in its place"
                    );
                    Err(AskError::NotPlaced { file, reason })
                }
            };
            let _ = reply.send(deployed);
        });
    }
}

/// What was loaded, and why the others were not. An app is named where there are several.
fn split(loads: Vec<(String, Result<Outcome, AskError>)>) -> (Vec<Outcome>, Vec<String>) {
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

/// Gives a file its name, in the place of another one if there is one.
fn place(file: TempPath, target: &Path) -> io::Result<()> {
    file.persist(target).map_err(|failed| failed.error)
}
