//! How a development session is going: what the process that builds tells the server that serves,
//! and that tells browsers.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The state of a session. Each change is sent as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Identifies the session. A page of another session is loaded again.
    pub session: String,
    /// How often new code or files took over. A page that was made before is loaded again.
    pub swaps: u64,
    /// What is being done.
    pub phase: Phase,
    /// How far Cargo is.
    pub progress: Option<Progress>,
    /// The output of the compiler with its colours (ANSI), or why an app did not start.
    pub report: String,
    /// Static files that changed.
    pub assets: Assets,
    /// The apps that have served, and where they are mounted.
    pub apps: BTreeMap<String, Vec<String>>,
    /// What does not change.
    pub options: Options,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Cargo runs.
    #[default]
    Building,
    /// The sources do not compile. What served before serves on.
    BuildFailed,
    /// The sources compile, and an app did not start. What served before serves on.
    StartFailed,
    /// The sources that are there serve.
    Serving,
}

/// How far Cargo is, in crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How many are done.
    pub done: u32,
    /// How many there are.
    pub total: u32,
}

/// Static files that changed since the swap before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assets {
    /// How often some did.
    pub changes: u64,
    /// Those that did last, relative to their folder.
    pub files: Vec<String>,
}

/// What a session was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Whether pages refresh themselves.
    pub refresh: bool,
    /// The host names that requests may be for, besides those of this machine and addresses.
    pub hosts: Vec<String>,
    /// The folders of the author's packages, whose files may be shown.
    pub sources: Vec<PathBuf>,
    /// The folders that paths of the compiler are relative to.
    pub roots: Vec<PathBuf>,
}
