//! Handles libraries that were read: records the facts about a library, or the reason why it cannot be loaded.

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
    /// Handles the result of a read, depending on the purpose of the read.
    pub(super) fn read(&mut self, read: LibraryRead) {
        let LibraryRead {
            path,
            purpose,
            examined,
        } = read;
        match purpose {
            ReadPurpose::Change { attempt, number } => {
                // The result is ignored if the file was changed again or removed in the meantime.
                if self.libraries.finish_read(&path, number) {
                    self.record_read(path, attempt, examined);
                }
            }
            ReadPurpose::Reload { app, reply_id } => self.reload(app, reply_id, path, examined),
            ReadPurpose::Rollback { app, reply_id } => self.roll_back(&app, reply_id, examined),
        }
    }

    /// Records the result of reading a new or changed file.
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
            debug!(file = %path.display(), "Removed before it was read");
        } else if error.is_incomplete() && attempt < MAX_ATTEMPTS {
            let error = error as &dyn std::error::Error;
            debug!(file = %path.display(), attempt, error, "Incomplete, reading it again later");
            // The result is not checked, because the watcher runs as long as the supervisor.
            let _ = self.retries.send(path);
        } else {
            self.record_unusable(path, &rejected);
        }
    }

    /// Records a file that cannot be loaded, and logs the reason. A file that is no plugin causes no error, unless it
    /// was the library of an app before.
    fn record_unusable(&mut self, path: PathBuf, rejected: &Rejected) {
        let has_apps = self.apps.values().any(|app| app.library == path);
        if rejected.error.is_no_plugin() && !has_apps {
            if self.libraries.add_non_plugin(path.clone()) {
                let reason = &rejected.error as &dyn std::error::Error;
                info!(file = %path.display(), reason, "Not a plugin, left alone");
            }
            return;
        }
        let failure = LoadFailure::new(&path, rejected.hash, &rejected.error);
        // One library may provide several apps, and each app reports the failure.
        let apps = self.apps.values_mut().filter(|app| app.library == path);
        for app in apps {
            app.report_failure(failure.clone());
        }
        self.libraries
            .add_unusable(path, rejected.plugin.clone(), failure);
    }

    /// Loads a library that was read because an operator requested a reload.
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

/// How often an incomplete library is read again before the load counts as failed. The wait before each read is twice
/// the wait before. All waits together take 15 times the quiet time.
const MAX_ATTEMPTS: u32 = 4;
