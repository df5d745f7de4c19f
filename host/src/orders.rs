//! The messages between supervisor and worker: an [`Order`] goes to the worker, a [`Notice`] comes back.
//!
//! The supervisor decides which apps exist, what each generation consists of, and which one serves. A worker
//! carries orders out and reports. A generation is named by app and number; the supervisor assigns the
//! numbers, which continue across workers. A generation is first *loaded*, in one worker after the other.
//! Only when it has started in all workers, they are ordered to *commit*, and it serves from then on. Until
//! the commit nothing changes for clients.

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

/// What a generation consists of. A difference in any field makes another generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The library's content.
    pub hash: ContentHash,
    /// The mounts of the app, at least one.
    pub mounts: Vec<Arc<str>>,
    /// The operator's configuration for the app, as a JSON object.
    pub config: Option<Arc<str>>,
}

/// A generation whose library is staged, so that a worker can start it. Nothing in it depends on the plugins
/// folder, whose files may have changed meanwhile.
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
    /// The most verbose log levels that are compiled into the plugin, if some were left out.
    pub max_level: Option<String>,
}

/// An order of the supervisor. A worker begins orders in the sequence in which they come. Work that takes time
/// goes on in the background while later orders are carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The setup of a worker process, which is always the first order. The server's stdout, its stderr, the
    /// scoreboard and the listening sockets are sent along as descriptors, in this sequence.
    Setup(Box<Setup>),
    /// Answer requests below the mounts with 503, because the app is being loaded.
    Hold {
        /// The app.
        app: String,
        /// Where it will be mounted.
        mounts: Vec<Arc<str>>,
    },
    /// Let requests below the mounts wait, because the app is about to move here from another worker.
    Await {
        /// The app.
        app: String,
        /// Where it will be mounted.
        mounts: Vec<Arc<str>>,
    },
    /// Load a generation. Answered by [`Notice::Loaded`] or [`Notice::Failed`].
    Load {
        /// The generation.
        staged: StagedGeneration,
        /// Whether the generation serves as soon as it has started, without [`Order::Commit`]. Used for a new
        /// worker, where the generation serves in the other workers already.
        serve: bool,
        /// The state that the app handed over in another worker.
        #[serde(with = "base64_option")]
        state: Option<Vec<u8>>,
    },
    /// Send requests to these loaded generations, all at one moment. Answered by one [`Notice::Swapped`]
    /// for each.
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
        /// Whether the generation before, which was kept, serves again.
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
        /// The number of the change.
        number: u64,
        /// The directives, in the syntax of `--log-level`.
        directives: String,
    },
    /// Reopen the log files.
    Reopen,
    /// Report the worker's apps and resources. Answered by [`Notice::Report`].
    Report {
        /// The number of the question.
        number: u64,
    },
    /// Accept connections.
    Accept,
    /// End: accept no more, finish what is there within `timeout`, stop all apps.
    Stop {
        /// How long requests may take.
        timeout: Duration,
        /// Whether other workers accept from the same sockets. Without any, the connections that
        /// wait in the kernel's queues are served as well.
        shared: bool,
        /// The apps whose state another worker waits for. Each is answered by [`Notice::State`] when
        /// no connection reads another request.
        give: Vec<String>,
    },
}

/// The setup of a worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The worker's number.
    pub worker: u64,
    /// Whether several workers may run, so that log lines name the worker.
    pub many: bool,
    /// The resolved settings of the server, by key of the configuration file.
    pub settings: BTreeMap<String, String>,
    /// The log directives in force.
    pub level: String,
}

/// The version of these messages. A supervisor and a worker with different versions refuse to talk.
pub const PROTOCOL: u32 = 2;

/// A generation to commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The app.
    pub app: String,
    /// The generation.
    pub generation: u64,
    /// Whether a probation begins, for which the generation before is kept.
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
        /// Whether the generation before has handed its state over. Its requests wait until the commit.
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
    /// A generation serves. Requests that begin after this notice never reach the generation before.
    Swapped {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long the swap took.
        took: Duration,
        /// Requests that were in flight in the generation before.
        in_flight: u64,
    },
    /// The state of an app, to be moved to another worker.
    State {
        /// The app.
        app: String,
        /// The state, or why the app gave none.
        #[serde(with = "base64_result")]
        state: Result<Vec<u8>, String>,
    },
    /// The verdict of a probation.
    Judged {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// The numbers of failures and requests if the generation failed. `None` if it passed.
        failed: Option<(u64, u64)>,
    },
    /// A generation has ended.
    Retired {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long its last requests took to end.
        drained: Duration,
        /// How many of them were cut off.
        aborted: u64,
    },
    /// The directives of [`Order::SetLevel`] are applied in every generation.
    InForce {
        /// The number of the change.
        number: u64,
        /// The libraries that did not confirm the level in time.
        unconfirmed: Vec<String>,
    },
    /// The answer to [`Order::Report`].
    Report {
        /// The number of the question.
        number: u64,
        /// The report.
        report: Box<WorkerReport>,
    },
    /// About how many more libraries the worker can load. Sent after each load.
    LoadsLeft(usize),
    /// All apps and connections have ended, and the worker exits.
    Stopped,
}
