//! Starts worker processes, and reports to the supervisor what they send and how they exit.
//!
//! Two tasks serve each worker: one relays messages (`messages`), one watches the process (`watch`). The
//! exit of the process is the only sign that a worker is gone; an error on the channel is only logged.

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
    listeners,
    output_tail::{OutputTail, StandardStream},
    process::{ChildExit, Children, Executable, Spawned},
};
use crate::{
    channel::{Channel, ChannelError, Hello, Unpacking, socket_pair},
    log::{capture::PrintTargets, filter::Filter},
    orders::{Notice, Order, PROTOCOL, Setup},
    scoreboard::{BoardSnapshot, Crash, Scoreboard},
};

/// An event of a worker, for the supervisor's main loop.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The worker sent a notice.
    Notice(Notice),
    /// The process has exited, or could not be started.
    Exited(Box<WorkerExit>),
}

/// The exit of a worker process, with the evidence for an autopsy.
#[derive(Debug)]
pub struct WorkerExit {
    /// The process number. `None` when the process could not be started.
    pub pid: Option<i32>,
    /// The exit status, or why the process could not be started.
    pub ended: Result<ChildExit, String>,
    /// The last lines that it printed.
    pub last_words: Vec<String>,
    /// The last content of its scoreboard.
    pub board: BoardSnapshot,
    /// The backtraces of its threads, if it was killed because a thread made no progress.
    pub hung: Option<Vec<Crash>>,
    /// Whether the kernel probably killed it because memory ran out.
    pub out_of_memory: bool,
}

/// Starts worker processes.
#[derive(Debug)]
pub struct WorkerSpawner {
    /// The program.
    pub executable: Arc<Executable>,
    /// The set of child processes.
    pub children: Children,
    /// The resolved settings of the server, by key.
    pub settings: BTreeMap<String, String>,
    /// The log filter, whose directives a worker starts with.
    pub filter: Filter,
    /// The listening sockets, shared by all workers.
    pub listeners: Vec<TcpListener>,
    /// Whether there may be several workers at once.
    pub many: bool,
    /// How long a thread may be in an app without progress (`--timeout`). Zero means no limit.
    pub timeout: Duration,
    /// Where printed lines of workers go.
    pub printed: PrintTargets,
    /// Sends events to the supervisor.
    pub events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
}

impl WorkerSpawner {
    /// Starts a worker process and returns the connection to it at once. Orders are queued until the worker
    /// is set up. A process that cannot be started is reported as an exit.
    pub fn start(&self, id: WorkerId) -> Link {
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (watch_requests, requests) = mpsc::unbounded_channel();
        let events = EventSender(id, self.events.clone());
        let mut process = WorkerProcess {
            pid: None,
            channel: Arc::default(),
            words: None,
            watch: watch_requests,
        };
        match self.spawn() {
            Ok((started, socket, board, shared)) => {
                let hello = self.hello();
                let pid = started.child.pid();
                process.pid = Some(pid);
                info!(worker = id, pid, "Worker started");
                let words = OutputTail::follow(started.stdout, started.stderr, self.line(id));
                process.words = Some(words.clone());
                let watch = ProcessWatch {
                    child: started.child,
                    words,
                    board,
                    timeout: self.timeout,
                    events: events.clone(),
                };
                tokio::spawn(watch.run(requests));
                match self.setup(id, shared) {
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
                        // The dropped socket closes the channel, so the process exits.
                        error!(%error, "A worker cannot be given what it needs");
                    }
                }
            }
            Err(error) => events.send(WorkerEvent::Exited(Box::new(WorkerExit {
                pid: None,
                ended: Err(error.to_string()),
                last_words: Vec::new(),
                board: BoardSnapshot::default(),
                hung: None,
                out_of_memory: false,
            }))),
        }
        Link::process(orders, process)
    }

    /// Takes over a worker process that an earlier image of this process started.
    ///
    /// # Errors
    ///
    /// When there is no such process, or a descriptor is missing.
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
        let words = OutputTail::resume(words, descriptors, self.line(id))?;
        let (sender, receiver) = channel.split();
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (watch_requests, requests) = mpsc::unbounded_channel();
        let events = EventSender(id, self.events.clone());
        let watch = ProcessWatch {
            child,
            words: words.clone(),
            // The scoreboard is not handed over, because the worker is recycled soon. Until then an autopsy
            // of this worker sees an empty scoreboard.
            board: Scoreboard::anonymous()?,
            timeout: self.timeout,
            events: events.clone(),
        };
        tokio::spawn(watch.run(requests));
        let process = WorkerProcess {
            pid: Some(pid),
            channel: Arc::new(OnceLock::from(sender.clone())),
            words: Some(words),
            watch: watch_requests,
        };
        tokio::spawn(relay(sender, receiver, order_receiver, events));
        Ok(Link::process(orders, process))
    }

    /// Returns the hello of this build.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: self.executable.build().to_owned(),
        }
    }

    fn spawn(&self) -> io::Result<(Spawned, OwnedFd, Scoreboard, OwnedFd)> {
        let (board, shared) = Scoreboard::create()?;
        let (ours, theirs) = socket_pair()?;
        let started = self.children.start_worker(&self.executable, theirs, [])?;
        Ok((started, ours, board, shared))
    }

    /// Returns the first order for a worker, with the descriptors that are sent along. The order of the
    /// descriptors is fixed: see [`Order::Setup`].
    fn setup(&self, worker: WorkerId, board: OwnedFd) -> io::Result<(Order, Vec<OwnedFd>)> {
        let mut descriptors = vec![
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
            board,
        ];
        for listener in &self.listeners {
            descriptors.push(listeners::share(listener)?);
        }
        let setup = Setup {
            worker,
            many: self.many,
            settings: self.settings.clone(),
            level: self.filter.directives().to_string(),
        };
        Ok((Order::Setup(Box::new(setup)), descriptors))
    }

    /// Returns a function that writes a line of a worker's output to the log, or to the server's own streams.
    fn line(&self, worker: WorkerId) -> impl Fn(StandardStream, &str) + Send + Sync + use<> {
        let printed = self.printed.clone();
        // A single worker needs no number in the log.
        let worker = self.many.then_some(worker);
        move |stream, line| {
            let output = match stream {
                StandardStream::Stdout => &printed.stdout,
                StandardStream::Stderr => &printed.stderr,
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
struct EventSender(WorkerId, mpsc::UnboundedSender<(WorkerId, WorkerEvent)>);

impl EventSender {
    /// Sends an event to the supervisor, unless the supervisor has ended.
    fn send(&self, event: WorkerEvent) {
        let _ = self.1.send((self.0, event));
    }
}
