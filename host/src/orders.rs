//! What the supervisor tells a worker ([`Order`]), and what a worker tells the supervisor
//! ([`Notice`]).
//!
//! The supervisor decides: which apps there are, what each generation is made of and which one
//! serves. A worker does what it is told and reports. Generations are named by app and number; the
//! numbers are the supervisor's and go on across workers. A generation is *loaded* first, in one
//! worker after the other; only when it has started in all of them, all are told to *commit*, and
//! from then on it serves. Until then nothing has changed for a client.

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

/// What a generation is made of: where any of this differs, it is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The library's content.
    pub hash: ContentHash,
    /// Where the app is mounted; there is one mount at least.
    pub mounts: Vec<Arc<str>>,
    /// What the operator tells the app, as a JSON object.
    pub config: Option<Arc<str>>,
}

/// A generation that a worker can start: everything that is needed for it, and nothing that a
/// folder may have changed meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedGeneration {
    /// The app's name.
    pub app: String,
    /// Which load of the app this is, from 1.
    pub generation: u64,
    /// The private copy of the library.
    pub copy: PathBuf,
    /// What the generation is made of.
    pub spec: Arc<Spec>,
    /// The plugin's version.
    pub version: String,
    /// The most verbose levels that are compiled into the plugin, where some are left out.
    pub max_level: Option<String>,
}

/// What the supervisor tells a worker. A worker carries the orders out in the order in which they
/// come; what takes time goes on while later ones are carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// What the worker is made of: the first order of a worker process. The server's stdout, its
    /// stderr, the scoreboard and the listening sockets go with it, in this order.
    Setup(Box<Setup>),
    /// Answer requests below the mounts with 503: the app is on its way.
    Hold {
        /// The app.
        app: String,
        /// Where it will be mounted.
        mounts: Vec<Arc<str>>,
    },
    /// Have requests below the mounts wait: the app is about to come over from another worker.
    Await {
        /// The app.
        app: String,
        /// Where it will be mounted.
        mounts: Vec<Arc<str>>,
    },
    /// Start a generation. Answered by [`Notice::Loaded`] or [`Notice::Failed`].
    Load {
        /// What to start.
        staged: StagedGeneration,
        /// Whether it takes over as soon as it has started, without [`Order::Commit`]: for a worker
        /// that is to have what the others have.
        serve: bool,
        /// The state that it starts with, which the app gave in another worker.
        #[serde(with = "base64_option")]
        state: Option<Vec<u8>>,
    },
    /// Send requests to generations that are loaded, at one moment. Answered by
    /// [`Notice::Swapped`] for each.
    Commit(Vec<Commit>),
    /// End a generation that is loading or loaded, and was not committed.
    Discard {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
    },
    /// End the watch over the generation that serves.
    Settle {
        /// The app.
        app: String,
        /// The generation that is watched.
        generation: u64,
        /// Whether the generation before, which was kept, takes over again.
        back: bool,
    },
    /// Let no more requests into the app, which are answered with 503, and end its generations.
    Suspend {
        /// The app.
        app: String,
    },
    /// Take the app away: it is mounted nowhere, and its generations end.
    Remove {
        /// The app.
        app: String,
    },
    /// Put these directives in force. Answered by [`Notice::InForce`].
    SetLevel {
        /// The number of the change.
        number: u64,
        /// The directives, as `--log-level` has them.
        directives: String,
    },
    /// Open the log files anew.
    Reopen,
    /// Say what there is. Answered by [`Notice::Report`].
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

/// What a worker process is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Which worker it is.
    pub worker: u64,
    /// Whether there are others, so that lines of the log tell which worker wrote them.
    pub many: bool,
    /// The settings of the server by key, as a configuration file has them.
    pub settings: BTreeMap<String, String>,
    /// The directives in force.
    pub level: String,
}

/// The version of these messages: a supervisor and a worker of different versions do not talk.
pub const PROTOCOL: u32 = 2;

/// A generation that is to serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The app.
    pub app: String,
    /// The generation.
    pub generation: u64,
    /// Whether the generation is watched, and the one before kept so that it can take over again.
    pub watch: bool,
}

/// What a worker tells the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// The worker takes orders.
    Ready,
    /// A load is at this step.
    Step {
        /// The app.
        app: String,
        /// The generation that is being loaded.
        generation: u64,
        /// The step that begins.
        step: Step,
    },
    /// A generation has started, and waits for [`Order::Commit`].
    Loaded {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long each step took.
        timings: StepTimings,
        /// Whether the generation before gave its state, and gets no requests until the commit.
        handed_over: bool,
        /// Whether the app has state to hand over itself.
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
        /// Why, in one line.
        error: String,
    },
    /// A generation serves from now on: no request that begins later is sent to the one before.
    Swapped {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long the swap took.
        took: Duration,
        /// How many requests were in the generation before.
        in_flight: u64,
    },
    /// The state of an app, for another worker.
    State {
        /// The app.
        app: String,
        /// The state, or why there is none.
        #[serde(with = "base64_result")]
        state: Result<Vec<u8>, String>,
    },
    /// What the watch over a generation came to.
    Judged {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// The failures and requests when it failed; none when it passed.
        failed: Option<(u64, u64)>,
    },
    /// A generation has ended.
    Retired {
        /// The app.
        app: String,
        /// The generation.
        generation: u64,
        /// How long its last requests took.
        drained: Duration,
        /// How many of them were cut off.
        aborted: u64,
    },
    /// The directives of [`Order::SetLevel`] are in force in every generation.
    InForce {
        /// The number of the change.
        number: u64,
        /// The libraries that did not confirm in time.
        unconfirmed: Vec<String>,
    },
    /// The answer to [`Order::Report`].
    Report {
        /// The number of the question.
        number: u64,
        /// What there is.
        report: Box<WorkerReport>,
    },
    /// About so many more libraries can be loaded; sent after each load.
    LoadsLeft(usize),
    /// All that the worker had has ended; the worker exits.
    Stopped,
}
