//! The state of a development session. The session process sends the state to the server, and the server sends it to
//! browsers as JSON. The script `client.js` depends on the names of the fields.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The state of a session. Each change of a field sends the whole state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// A text that identifies the session. A browser reloads a page that it got from another session.
    pub session: String,
    /// The number of swaps, in which new code replaced old code. A browser reloads a page that it got at a lower
    /// number.
    pub swaps: u64,
    /// The current step.
    pub phase: SessionPhase,
    /// The progress of the running build, or `None` if no build runs or Cargo has not reported a progress yet.
    pub progress: Option<BuildProgress>,
    /// The compiler's output with ANSI colours, or the reasons why apps did not start. Empty if the last round
    /// succeeded.
    pub report: String,
    /// The last change of static files.
    pub assets: AssetChanges,
    /// The mounts of each app that has served, by the app's name.
    pub apps: BTreeMap<String, Vec<String>>,
    /// Options and folders, which do not change during the session.
    pub options: SessionOptions,
}

/// The current step of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionPhase {
    /// Cargo builds the sources.
    #[default]
    Building,
    /// The sources do not compile. The previous versions continue to serve.
    BuildFailed,
    /// The sources compile, but an app did not start. The app's previous version continues to serve.
    StartFailed,
    /// The current sources serve.
    Serving,
}

/// The progress of a build, in crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildProgress {
    /// The number of crates that are built.
    pub done: u32,
    /// The number of all crates of the build.
    pub total: u32,
}

/// Changes of static files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetChanges {
    /// The number of changes so far. Files that change together count as one change.
    pub changes: u64,
    /// The files of the last change. The paths are relative to the watched folder.
    pub files: Vec<String>,
}

/// The options of a session, and the folders of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Whether the server adds the script to pages that shows errors and refreshes the page.
    pub refresh: bool,
    /// The host names that requests may use, besides localhost and IP addresses (`--allow-host`).
    pub hosts: Vec<String>,
    /// The folders of the plugins' packages and of their dependencies on this machine. Error pages show excerpts only
    /// of files in these folders.
    pub sources: Vec<PathBuf>,
    /// The workspace folders, to which the compiler's paths are relative.
    pub roots: Vec<PathBuf>,
}
