//! The state of a development session, as the session process sends it to the server and the server
//! to browsers (`client.js` reads the same names).

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The state of a session. A change of one field sends all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// An identity of the session. A browser reloads a page of another session.
    pub session: String,
    /// The number of times that new code took over. A browser reloads a page with a lower number.
    pub swaps: u64,
    /// The current step.
    pub phase: SessionPhase,
    /// Cargo's progress, while a build runs and Cargo has reported some.
    pub progress: Option<BuildProgress>,
    /// The compiler's output with ANSI colours, or the reasons why apps did not start. Empty when all
    /// is well.
    pub report: String,
    /// The last change of static files.
    pub assets: AssetChanges,
    /// The mounts of each app that has served.
    pub apps: BTreeMap<String, Vec<String>>,
    /// Facts that stay the same throughout the session.
    pub options: SessionOptions,
}

/// The current step of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionPhase {
    /// Cargo builds the sources.
    #[default]
    Building,
    /// The sources do not compile. The previous versions go on serving.
    BuildFailed,
    /// The sources compile, but an app did not start. Its previous version goes on serving.
    StartFailed,
    /// The current sources serve.
    Serving,
}

/// The progress of a build, in crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildProgress {
    /// The number of crates that are done.
    pub done: u32,
    /// The number of crates in all.
    pub total: u32,
}

/// Changes of static files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetChanges {
    /// The number of changes so far, each of one or more files.
    pub changes: u64,
    /// The files of the last change, relative to their watched folder.
    pub files: Vec<String>,
}

/// The options of a session, and the folders that it works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Whether pages get the script that refreshes them.
    pub refresh: bool,
    /// The host names that requests may name, besides localhost and IP addresses.
    pub hosts: Vec<String>,
    /// The folders of the packages that the plugins consist of. Error pages show files in them.
    pub sources: Vec<PathBuf>,
    /// The workspace folders, to which the compiler's paths are relative.
    pub roots: Vec<PathBuf>,
}
