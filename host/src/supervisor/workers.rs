//! Starts worker processes, and reports their notices and exits to the supervisor.
//!
//! Two tasks serve each worker: one task relays messages (`messages`), the other watches the process (`watch`). The
//! supervisor removes a worker only when its process has exited. An error on the channel is only logged.

mod dump;
mod messages;
mod progress;
pub mod watch;

use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{error, info};

use self::{
    messages::{open_and_relay, relay},
    watch::ProcessWatch,
};
use super::{
    app::WorkerId,
    fleet::{Link, WorkerProcess},
    handover::WorkerSnapshot,
    output_tail::{OutputTail, StandardStream},
    process::{ChildExit, Children, Executable, Spawned},
};
use crate::{
    channel::{Channel, ChannelError, Hello, Unpacking, listeners, socket_pair},
    log::{capture::PrintTargets, filter::Filter},
    orders::{Notice, Order, PROTOCOL, Setup},
    scoreboard::{BoardSnapshot, Scoreboard, ThreadReport},
};

/// An event of a worker, for the supervisor's main loop.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The worker sent a notice.
    Notice(Notice),
    /// The process of the worker has exited, or could not be started.
    Exited(Box<WorkerExit>),
}

/// The exit of a worker process, with the evidence for an autopsy.
#[derive(Debug)]
pub struct WorkerExit {
    /// The process number. `None` when the process could not be started.
    pub pid: Option<i32>,
    /// The exit status, or why the process could not be started.
    pub status: Result<ChildExit, String>,
    /// The last lines that the worker printed.
    pub last_words: Vec<String>,
    /// The content of the worker's scoreboard after the exit.
    pub board: BoardSnapshot,
    /// The backtraces of the worker's threads, if the worker was killed because a thread made no progress.
    pub hang_dumps: Option<Vec<ThreadReport>>,
    /// Whether the kernel probably killed the worker because memory ran out.
    pub out_of_memory: bool,
}

/// Starts worker processes.
#[derive(Debug)]
pub struct WorkerSpawner {
    /// The program of the workers, which is this program.
    pub executable: Arc<Executable>,
    /// The set of child processes.
    pub children: Children,
    /// The resolved settings of the server, by key of the configuration file.
    pub settings: BTreeMap<String, String>,
    /// The log filter. A worker starts with the directives of this filter.
    pub filter: Filter,
    /// The listening sockets, shared by all workers.
    pub listeners: Vec<TcpListener>,
    /// Whether several workers may run at once. If true, the log lines of a worker contain its number.
    pub has_several_workers: bool,
    /// How long a thread may stay in an app without progress (`--timeout`). Zero means no limit.
    pub timeout: Duration,
    /// The outputs for the lines that workers print.
    pub print_targets: PrintTargets,
    /// Sends events to the supervisor.
    pub events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
}

impl WorkerSpawner {
    /// Starts a worker process, and returns the connection to the worker at once. Orders are queued until the channel
    /// to the worker is open. If the process cannot be started, [`WorkerEvent::Exited`] is sent.
    pub fn start(&self, id: WorkerId) -> Link {
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (watch_requests, requests) = mpsc::unbounded_channel();
        let events = EventSender {
            worker: id,
            events: self.events.clone(),
        };
        let mut process = WorkerProcess {
            pid: None,
            channel: Arc::default(),
            output: None,
            watch: watch_requests,
        };
        match self.spawn() {
            Ok((started, socket, board, board_memory)) => {
                let hello = self.hello();
                let pid = started.child.pid();
                process.pid = Some(pid);
                info!(worker = id, pid, "Worker started");
                let output =
                    OutputTail::follow(started.stdout, started.stderr, self.line_writer(id));
                process.output = Some(output.clone());
                let watch = ProcessWatch {
                    child: started.child,
                    output,
                    board,
                    timeout: self.timeout,
                    events: events.clone(),
                };
                // The watch starts before the setup, so that the exit is reported even if the setup fails.
                tokio::spawn(watch.run(requests));
                match self.setup(id, board_memory) {
                    Ok(setup) => {
                        let channel = Arc::clone(&process.channel);
                        tokio::spawn(open_and_relay(
                            socket,
                            hello,
                            setup,
                            order_receiver,
                            channel,
                            events,
                        ));
                    }
                    Err(error) => {
                        // The process exits, because the dropped socket closes its channel.
                        error!(%error, "The setup cannot be sent to a worker");
                    }
                }
            }
            // Reported as an exit, so that the next start is delayed as after a crash.
            Err(error) => events.send(WorkerEvent::Exited(Box::new(WorkerExit {
                pid: None,
                status: Err(error.to_string()),
                last_words: Vec::new(),
                board: BoardSnapshot::default(),
                hang_dumps: None,
                out_of_memory: false,
            }))),
        }
        Link::process(orders, process)
    }

    /// Takes over a worker process that an earlier image of this process started.
    ///
    /// # Errors
    ///
    /// When this process has no such child, or a descriptor is missing.
    pub fn resume(
        &self,
        state: WorkerSnapshot,
        descriptors: &mut Unpacking,
    ) -> Result<Link, ChannelError> {
        let WorkerSnapshot {
            id,
            pid,
            channel,
            words,
            ..
        } = state;
        let child = self.children.adopt(pid)?;
        let channel: Channel<Order, Notice> = Channel::resume(channel, descriptors)?;
        let output = OutputTail::resume(words, descriptors, self.line_writer(id))?;
        let (sender, receiver) = channel.split();
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (watch_requests, requests) = mpsc::unbounded_channel();
        let events = EventSender {
            worker: id,
            events: self.events.clone(),
        };
        let watch = ProcessWatch {
            child,
            output: output.clone(),
            // The scoreboard is not handed over, because the worker is recycled soon. An autopsy of this worker finds
            // an empty scoreboard.
            board: Scoreboard::anonymous()?,
            timeout: self.timeout,
            events: events.clone(),
        };
        tokio::spawn(watch.run(requests));
        let process = WorkerProcess {
            pid: Some(pid),
            channel: Arc::new(OnceLock::from(sender.clone())),
            output: Some(output),
            watch: watch_requests,
        };
        tokio::spawn(relay(sender, receiver, order_receiver, events));
        Ok(Link::process(orders, process))
    }

    /// Returns the hello of this build: the version of the worker protocol and the name of the build.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: self.executable.build().to_owned(),
        }
    }

    /// Starts a worker process. Returns the process, this side of its channel, its scoreboard, and the descriptor of
    /// the scoreboard's memory for the worker.
    fn spawn(&self) -> io::Result<(Spawned, OwnedFd, Scoreboard, OwnedFd)> {
        let (board, board_memory) = Scoreboard::create()?;
        let (own_end, worker_end) = socket_pair()?;
        let started = self
            .children
            .start_worker(&self.executable, worker_end, [])?;
        Ok((started, own_end, board, board_memory))
    }

    /// Returns the first order for a worker, and the descriptors that are sent with that order. [`Order::Setup`]
    /// defines the sequence of the descriptors.
    fn setup(&self, worker: WorkerId, board_memory: OwnedFd) -> io::Result<(Order, Vec<OwnedFd>)> {
        let mut descriptors = vec![
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
            board_memory,
        ];
        for listener in &self.listeners {
            descriptors.push(listeners::share(listener)?);
        }
        let setup = Setup {
            worker,
            has_number_in_text_log: self.has_several_workers,
            settings: self.settings.clone(),
            level: self.filter.directives().to_string(),
        };
        Ok((Order::Setup(Box::new(setup)), descriptors))
    }

    /// Returns a function that writes a line of a worker's output to the stream's own target, or to the log if the
    /// stream has no target.
    fn line_writer(&self, worker: WorkerId) -> impl Fn(StandardStream, &str) + Send + Sync + use<> {
        let targets = self.print_targets.clone();
        // The log lines of a single worker need no number.
        let worker = self.has_several_workers.then_some(worker);
        move |stream, line| {
            let output = match stream {
                StandardStream::Stdout => &targets.stdout,
                StandardStream::Stderr => &targets.stderr,
            };
            match (stream, output) {
                (_, Some(output)) => output.write(format!("{line}\n").as_bytes()),
                (StandardStream::Stdout, None) => info!(target: "stdout", worker, "{line}"),
                (StandardStream::Stderr, None) => info!(target: "stderr", worker, "{line}"),
            }
        }
    }
}

/// Sends the events of one worker.
#[derive(Clone, Debug)]
struct EventSender {
    worker: WorkerId,
    events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
}

impl EventSender {
    /// Sends an event to the supervisor.
    fn send(&self, event: WorkerEvent) {
        // A failure means that the supervisor has ended, and needs no events.
        let _ = self.events.send((self.worker, event));
    }
}
