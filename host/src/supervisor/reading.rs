//! A library was read: what the supervisor learns from it.

use std::path::PathBuf;

use tracing::{debug, info};

use super::{
    Supervisor,
    app::AskId,
    error::AskError,
    libraries::{Purpose, Read},
    outcome::Failure,
    plans::Asked,
};
use crate::folder::candidate::{Candidate, Rejected};

impl Supervisor {
    /// A library was read.
    pub(super) fn read(&mut self, read: Read) {
        let Read {
            path,
            purpose,
            examined,
        } = read;
        match purpose {
            Purpose::Change { attempt, number } => {
                // It may have changed once more, or gone.
                if self.libraries.ends_reading(&path, number) {
                    self.learn(path, attempt, examined);
                }
            }
            Purpose::Reload { app, ask } => self.reload(app, ask, path, examined),
            Purpose::Rollback { app, ask } => self.roll_back(&app, ask, examined),
        }
    }

    fn learn(&mut self, path: PathBuf, attempt: u32, examined: Result<Candidate, Rejected>) {
        let rejected = match examined {
            Ok(candidate) => {
                self.libraries.learn(path, candidate);
                return;
            }
            Err(rejected) => rejected,
        };
        let error = &rejected.error;
        if error.is_gone() {
            debug!(file = %path.display(), "Went away before it was read");
        } else if error.is_incomplete() && attempt < ATTEMPTS {
            let error = error as &dyn std::error::Error;
            debug!(file = %path.display(), attempt, error, "Not whole yet");
            // The watcher ends after the supervisor does.
            let _ = self.retries.send(path);
        } else {
            self.unusable(path, &rejected);
        }
    }

    fn unusable(&mut self, path: PathBuf, rejected: &Rejected) {
        let has_apps = self.apps.values().any(|app| app.library == path);
        if rejected.error.is_no_plugin() && !has_apps {
            if self.libraries.learn_other(path.clone()) {
                let reason = &rejected.error as &dyn std::error::Error;
                info!(file = %path.display(), reason, "Not a plugin, left alone");
            }
            return;
        }
        let failure = Failure::new(&path, rejected.hash, &rejected.error);
        let apps = self.apps.values_mut().filter(|app| app.library == path);
        for app in apps {
            app.say_failed(failure.clone());
        }
        self.libraries
            .learn_unusable(path, rejected.plugin.clone(), failure);
    }

    fn reload(
        &mut self,
        app: String,
        ask: AskId,
        path: PathBuf,
        examined: Result<Candidate, Rejected>,
    ) {
        match examined {
            Ok(candidate) => {
                let candidate = self.libraries.learn(path, candidate);
                self.plan_for(vec![Asked {
                    app,
                    ask,
                    candidate,
                }]);
            }
            Err(rejected) => {
                let failure = Failure::new(&path, rejected.hash, &rejected.error);
                self.answer(ask, Err(AskError::Failed(failure.error.clone())));
                if let Some(app) = self.apps.get_mut(&app) {
                    app.say_failed(failure);
                }
            }
        }
    }
}

/// How often a library that is not whole is read again before that counts as a failure, unless it
/// changes: 16 quiet times in all, as the waits double.
const ATTEMPTS: u32 = 4;
