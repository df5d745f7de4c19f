//! Worker processes: started with what they need, listened to, and seen off.

mod messages;
mod progress;
mod watch;

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

/// What happens to a worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// It tells something.
    Notice(Notice),
    /// Its process has ended, or never was one.
    Exited(Box<WorkerExit>),
}

/// How a worker process ended.
#[derive(Debug)]
pub struct WorkerExit {
    /// The process; none when it could not be started.
    pub pid: Option<i32>,
    /// How it ended, or why it could not be started.
    pub ended: Result<ChildExit, String>,
    /// What it printed last.
    pub last_words: Vec<String>,
    /// What its scoreboard says.
    pub board: BoardSnapshot,
    /// Where its threads were, when it was ended because one of them made no progress.
    pub hung: Option<Vec<Crash>>,
    /// Whether the kernel has killed it for want of memory, as far as can be told.
    pub out_of_memory: bool,
}

/// Starts worker processes.
#[derive(Debug)]
pub struct WorkerSpawner {
    /// The program.
    pub executable: Arc<Executable>,
    /// The processes.
    pub children: Children,
    /// The settings of the server by key.
    pub settings: BTreeMap<String, String>,
    /// The level, as it is when a worker starts.
    pub filter: Filter,
    /// The sockets that all workers accept from.
    pub listeners: Vec<TcpListener>,
    /// Whether there may be several workers at once.
    pub many: bool,
    /// How long a thread of a worker may be in an app without progress; zero for no limit.
    pub timeout: Duration,
    /// Where the lines go that workers print.
    pub printed: PrintTargets,
    /// Where what happens to workers is told.
    pub events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
}

impl WorkerSpawner {
    /// Starts a worker process, and returns the way to it at once: orders wait until it takes them.
    pub fn start(&self, id: WorkerId) -> Link {
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (kill, kills) = mpsc::unbounded_channel();
        let events = EventSender(id, self.events.clone());
        let mut process = WorkerProcess {
            pid: None,
            channel: Arc::default(),
            words: None,
            kill,
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
                tokio::spawn(watch.run(kills));
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
                        // The process ends, since its channel does.
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

    /// Goes on with a worker process that an earlier image of this process started.
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
        let (kill, kills) = mpsc::unbounded_channel();
        let events = EventSender(id, self.events.clone());
        let watch = ProcessWatch {
            child,
            words: words.clone(),
            // The worker is replaced soon; until then, what it writes down of itself is not read.
            board: Scoreboard::anonymous()?,
            timeout: self.timeout,
            events: events.clone(),
        };
        tokio::spawn(watch.run(kills));
        let process = WorkerProcess {
            pid: Some(pid),
            channel: Arc::new(OnceLock::from(sender.clone())),
            words: Some(words),
            kill,
        };
        tokio::spawn(relay(sender, receiver, order_receiver, events));
        Ok(Link::process(orders, process))
    }

    /// What this build says of itself.
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

    /// What a worker is told first, and the descriptors that go with it.
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

    /// Passes on a line that a worker prints, to the log or to the server's own streams.
    fn line(&self, worker: WorkerId) -> impl Fn(StandardStream, &str) + Send + Sync + use<> {
        let printed = self.printed.clone();
        // Which worker it is tells nothing when there is one.
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

/// Where what happens to one worker is told.
#[derive(Clone, Debug)]
struct EventSender(WorkerId, mpsc::UnboundedSender<(WorkerId, WorkerEvent)>);

impl EventSender {
    /// Tells the supervisor, unless it is gone.
    fn send(&self, event: WorkerEvent) {
        let _ = self.1.send((self.0, event));
    }
}
