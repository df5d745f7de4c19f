//! The messages between supervisor and worker: the supervisor sends an [`Order`], and the worker sends a [`Notice`].
//!
//! The supervisor decides which apps exist, what each generation consists of, and which generation serves. A worker
//! executes orders and reports the results. A generation is identified by its app and its number. The supervisor
//! assigns the numbers, so a generation has the same number in all workers.
//!
//! A generation is first *loaded*: in the first worker, and then in the others. After the generation has started in all
//! workers, the supervisor orders all workers to *commit*, and the generation serves. Until the commit nothing changes
//! for clients.

mod bytes;
mod report;
mod steps;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use self::bytes::{base64_option, base64_result};
pub(crate) use self::steps::as_ms;
pub use self::{
    report::{EndedGeneration, GenerationReport, WorkerReport},
    steps::{Step, StepTimings},
};
use crate::folder::store::ContentHash;

/// The definition of a generation. A change of any field requires a new generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The hash of the library's content.
    pub hash: ContentHash,
    /// The mounts of the app. At least one.
    pub mounts: Vec<Arc<str>>,
    /// The operator's configuration for the app, as a JSON object.
    pub config: Option<Arc<str>>,
}

/// A generation whose library is staged, so that a worker can load the generation. The load does not depend on the
/// plugins folder, whose files may have changed since the staging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedGeneration {
    /// The app's name.
    pub app: String,
    /// The number of the generation, from 1.
    pub generation: u64,
    /// The private copy of the library.
    pub copy: PathBuf,
    /// The spec of the generation.
    pub spec: Arc<Spec>,
    /// The plugin's version.
    pub version: String,
    /// The log levels to which features of the plugin's crates limit the plugin, such as `tracing=info`. `None` without
    /// a limit.
    pub max_level: Option<String>,
}

/// An order of the supervisor. A worker begins orders in the sequence in which they arrive. Work that takes time
/// continues in the background while the worker executes later orders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The setup of a worker process. Always the first order. These descriptors are sent with the order, in this
    /// sequence: the server's stdout, the server's stderr, the scoreboard, and the listening sockets.
    Setup(Box<Setup>),
    /// Answer requests below the mounts with 503, because the app is still being loaded.
    Hold {
        /// The app.
        app: String,
        /// The mounts of the app.
        mounts: Vec<Arc<str>>,
    },
    /// Let requests below the mounts wait, because the app is about to move from another worker to this worker.
    Await {
        /// The app.
        app: String,
        /// The mounts of the app.
        mounts: Vec<Arc<str>>,
    },
    /// Load a generation. Answered by [`Notice::Loaded`] or [`Notice::Failed`].
    Load {
        /// The generation.
        staged: StagedGeneration,
        /// Whether the generation serves as soon as it has started, without an [`Order::Commit`]. True in a new worker,
        /// if the generation serves in the other workers already.
        serve: bool,
        /// The state that the app handed over in another worker. `None` if the app starts without such a state.
        #[serde(with = "base64_option")]
        state: Option<Vec<u8>>,
    },
    /// Route requests to these loaded generations, all at one moment. Answered by one [`Notice::Swapped`] for each
    /// generation.
    Commit(Vec<Commit>),
    /// End a generation that was not committed.
    Discard {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
    },
    /// End the probation of the serving generation.
    Settle {
        /// The app.
        app: String,
        /// The generation on probation.
        generation: u64,
        /// Whether the previous generation serves again. If false, the previous generation ends.
        back: bool,
    },
    /// Answer requests to the app with 503, and end its generations.
    Suspend {
        /// The app.
        app: String,
    },
    /// Remove the app and its mounts, and end its generations.
    Remove {
        /// The app.
        app: String,
    },
    /// Apply these log directives. Answered by [`Notice::InForce`].
    SetLevel {
        /// The number of the change, which the answer repeats.
        number: u64,
        /// The directives, in the syntax of `--log-level`.
        directives: String,
    },
    /// Reopen the log files.
    Reopen,
    /// Report the worker's apps and resources. Answered by [`Notice::Report`].
    Report {
        /// The number of the report, which the answer repeats.
        number: u64,
    },
    /// Accept connections.
    Accept,
    /// Stop the worker: accept no more connections, finish the requests in flight within `timeout`, and stop all apps.
    /// Answered by [`Notice::Stopped`].
    Stop {
        /// How long requests in flight may take to finish.
        timeout: Duration,
        /// Whether other workers accept from the same sockets. If not, this worker also serves the connections that
        /// wait in the kernel's queues.
        shared: bool,
        /// The apps whose state another worker waits for. Each app is answered by a [`Notice::State`], after no
        /// connection of this worker can bring another request.
        give: Vec<String>,
    },
}

/// The setup of a worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The worker's number.
    pub worker: u64,
    /// Whether lines of the text log contain the worker's number, because several workers may run.
    #[serde(rename = "many")]
    pub has_number_in_text_log: bool,
    /// The resolved settings of the server, by key of the configuration file.
    pub settings: BTreeMap<String, String>,
    /// The log directives in force.
    pub level: String,
}

/// The version of these messages. A supervisor and a worker with different versions refuse to communicate.
pub const PROTOCOL: u32 = 2;

/// A generation to commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The app.
    pub app: String,
    /// The generation.
    pub generation: u64,
    /// Whether a probation begins. The previous generation then keeps running until the end of the probation.
    pub watch: bool,
}

/// A notice of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// The worker is ready for orders.
    Ready,
    /// A load has begun this step.
    Step {
        /// The app.
        app: String,
        /// The generation that is being loaded.
        generation: u64,
        /// The step that begins.
        step: Step,
    },
    /// A generation has started and waits for [`Order::Commit`].
    Loaded {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long each step took.
        timings: StepTimings,
        /// Whether the previous generation has handed its state over. New requests wait until the commit.
        handed_over: bool,
        /// Whether the new generation can hand its own state over later.
        hands_over: bool,
    },
    /// A generation could not be started.
    Failed {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// The step that failed.
        step: String,
        /// The error with its causes, in one line.
        error: String,
    },
    /// A generation serves. Requests that begin after this notice never reach the previous generation.
    Swapped {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long the swap took.
        took: Duration,
        /// The number of requests that were in flight in the previous generation.
        in_flight: u64,
    },
    /// The state of an app, to be moved to another worker.
    State {
        /// The app.
        app: String,
        /// The state, or the reason why the app did not hand its state over.
        #[serde(with = "base64_result")]
        state: Result<Vec<u8>, String>,
    },
    /// The verdict of a probation: whether the new generation is worse than the previous generation.
    Judged {
        /// The app.
        app: String,
        /// The generation on probation.
        generation: u64,
        /// The number of failures and the number of requests if the generation failed. `None` if the generation passed.
        failed: Option<(u64, u64)>,
    },
    /// A generation has ended.
    Retired {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long the last requests of the generation took to end.
        drained: Duration,
        /// The number of these requests that were aborted.
        aborted: u64,
    },
    /// The directives of [`Order::SetLevel`] are applied in every generation.
    InForce {
        /// The number of the change, which the answer repeats.
        number: u64,
        /// The generations that did not confirm the level in time, as `APP#NUMBER`.
        unconfirmed: Vec<String>,
    },
    /// The answer to [`Order::Report`].
    Report {
        /// The number of the report, which the answer repeats.
        number: u64,
        /// The report.
        report: Box<WorkerReport>,
    },
    /// The estimated number of libraries that the worker can still load. Sent after each load.
    LoadsLeft(usize),
    /// All apps and connections have ended, and the worker exits.
    Stopped,
}
