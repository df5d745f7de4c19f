//! Handles libraries that were read: records their facts, or why they cannot be loaded.

use std::path::PathBuf;

use tracing::{debug, info};

use super::{
    Supervisor,
    app::ReplyId,
    error::CommandError,
    libraries::{LibraryRead, ReadPurpose},
    outcome::LoadFailure,
    plans::ReloadRequest,
};
use crate::folder::candidate::{Candidate, Rejected};

impl Supervisor {
    /// Handles the result of a read, depending on why the library was read.
    pub(super) fn read(&mut self, read: LibraryRead) {
        let LibraryRead {
            path,
            purpose,
            examined,
        } = read;
        match purpose {
            ReadPurpose::Change { attempt, number } => {
                // The file may have changed again or been removed; then a newer read decides.
                if self.libraries.finish_read(&path, number) {
                    self.record_read(path, attempt, examined);
                }
            }
            ReadPurpose::Reload { app, reply_id } => self.reload(app, reply_id, path, examined),
            ReadPurpose::Rollback { app, reply_id } => self.roll_back(&app, reply_id, examined),
        }
    }

    fn record_read(&mut self, path: PathBuf, attempt: u32, examined: Result<Candidate, Rejected>) {
        let rejected = match examined {
            Ok(candidate) => {
                self.libraries.add_plugin(path, candidate);
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
            // A send cannot fail, because the watcher outlives the supervisor.
            let _ = self.retries.send(path);
        } else {
            self.record_unusable(path, &rejected);
        }
    }

    fn record_unusable(&mut self, path: PathBuf, rejected: &Rejected) {
        let has_apps = self.apps.values().any(|app| app.library == path);
        if rejected.error.is_no_plugin() && !has_apps {
            if self.libraries.add_other(path.clone()) {
                let reason = &rejected.error as &dyn std::error::Error;
                info!(file = %path.display(), reason, "Not a plugin, left alone");
            }
            return;
        }
        let failure = LoadFailure::new(&path, rejected.hash, &rejected.error);
        let apps = self.apps.values_mut().filter(|app| app.library == path);
        for app in apps {
            app.report_failure(failure.clone());
        }
        self.libraries
            .add_unusable(path, rejected.plugin.clone(), failure);
    }

    fn reload(
        &mut self,
        app: String,
        reply_id: ReplyId,
        path: PathBuf,
        examined: Result<Candidate, Rejected>,
    ) {
        match examined {
            Ok(candidate) => {
                let candidate = self.libraries.add_plugin(path, candidate);
                self.plan_for(vec![ReloadRequest {
                    app,
                    reply_id,
                    candidate,
                }]);
            }
            Err(rejected) => {
                let failure = LoadFailure::new(&path, rejected.hash, &rejected.error);
                self.answer(reply_id, Err(CommandError::Failed(failure.error.clone())));
                if let Some(app) = self.apps.get_mut(&app) {
                    app.report_failure(failure);
                }
            }
        }
    }
}

/// How often an incomplete library is read again before it counts as a failure. The waits double: in all
/// they take 15 times the quiet time.
const ATTEMPTS: u32 = 4;
