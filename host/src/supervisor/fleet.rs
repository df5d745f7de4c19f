//! The workers that there are, and what each of them has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Signal, getpid};
use tokio::sync::mpsc;

use super::{app::WorkerId, last_words::LastWords};
use crate::{
    channel::Sender,
    orders::{Order, Started},
    worker::load::Step,
};

/// The workers.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    last: WorkerId,
    /// Whether the first loads are over, so that connections are accepted.
    accepts: bool,
    /// The copies that workers had opened which have ended.
    copies: BTreeSet<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Worker {
    link: Link,
    /// When it was started.
    since: Instant,
    started_at: SystemTime,
    /// Whether it was told to stop.
    pub(super) is_leaving: bool,
    /// Whether the supervisor has killed it.
    pub(super) is_killed: bool,
    /// The private copies that it has opened.
    opened: BTreeSet<PathBuf>,
    /// Whether it takes orders.
    is_ready: bool,
    /// Whether it accepts connections.
    accepts: bool,
    /// What it has to start before it accepts: the generation by app.
    booting: BTreeMap<String, u64>,
    /// The step of each load that is under way.
    steps: BTreeMap<(String, u64), Step>,
    loads_left: usize,
}

/// An open way to a worker process.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) id: WorkerId,
    pub(super) pid: i32,
    pub(super) channel: Sender<Order>,
    pub(super) words: LastWords,
    pub(super) opened: BTreeSet<PathBuf>,
}

/// The way to a worker.
#[derive(Clone, Debug)]
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    /// The way to its process; none when the worker is a task of this one.
    process: Option<Process>,
}

/// The process of a worker.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number; none when it could not be started.
    pub pid: Option<i32>,
    /// The channel to it, once that is open.
    pub channel: Arc<OnceLock<Sender<Order>>>,
    /// What it prints.
    pub words: Option<LastWords>,
    /// Where signals for it go.
    pub kill: mpsc::UnboundedSender<Signal>,
}

impl Link {
    /// The way to a worker that is a task of this process.
    #[must_use]
    pub fn local(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self {
            orders,
            process: None,
        }
    }

    /// The way to a worker that is a process of its own.
    #[must_use]
    pub fn process(orders: mpsc::UnboundedSender<Order>, process: Process) -> Self {
        Self {
            orders,
            process: Some(process),
        }
    }

    /// Tells the worker. One that is gone is known to be by other ways.
    fn send(&self, order: Order) {
        let channel = self
            .process
            .as_ref()
            .and_then(|process| process.channel.get());
        match channel {
            // Nothing may wait in this process when another image of it goes on.
            Some(channel) => {
                let _ = channel.send(&order);
            }
            None => {
                let _ = self.orders.send(order);
            }
        }
    }

    /// Sends a signal to the worker's process, if it has one of its own.
    fn kill(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // A process that has ended needs no signal.
            let _ = process.kill.send(signal);
        }
    }
}

impl Fleet {
    /// The number of the next worker.
    pub(super) fn next_id(&mut self) -> WorkerId {
        self.last += 1;
        self.last
    }

    /// How many workers there are that were not told to stop.
    pub(super) fn staying(&self) -> usize {
        let staying = self.workers.values().filter(|worker| !worker.is_leaving);
        staying.count()
    }

    /// The workers that can be done without most easily, of those that stay: first those that do not
    /// serve yet, then the oldest, because memory that leaked is most there.
    /// Those of `but` are not among them.
    pub(super) fn dispensable(&self, count: usize, but: &[WorkerId]) -> Vec<WorkerId> {
        let staying = self.workers.iter();
        let staying = staying.filter(|(id, worker)| !worker.is_leaving && !but.contains(id));
        let mut staying: Vec<_> = staying.map(|(&id, worker)| (worker.accepts, id)).collect();
        staying.sort_unstable();
        staying.into_iter().take(count).map(|(_, id)| id).collect()
    }

    /// Whether a worker accepts connections.
    pub(super) fn serves(&self) -> bool {
        self.workers.values().any(|worker| worker.accepts)
    }

    /// The workers with what is known of them without asking them.
    pub(super) fn workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(&id, worker)| (id, worker))
    }

    pub(super) fn add(&mut self, id: WorkerId, link: Link) {
        let worker = Worker {
            link,
            since: Instant::now(),
            started_at: SystemTime::now(),
            is_ready: false,
            accepts: false,
            booting: BTreeMap::new(),
            is_leaving: false,
            is_killed: false,
            steps: BTreeMap::new(),
            opened: BTreeSet::new(),
            loads_left: usize::MAX,
        };
        self.workers.insert(id, worker);
    }

    /// Forgets a worker that has ended.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<Worker> {
        let left = self.workers.remove(&worker)?;
        self.copies.extend(left.opened.iter().cloned());
        Some(left)
    }

    /// The copies that were opened by workers that have ended, and by none that runs, and that are
    /// not `needed`. Each is told once.
    pub(super) fn unused_copies(&mut self, needed: impl Fn(&PathBuf) -> bool) -> Vec<PathBuf> {
        let workers = &self.workers;
        let is_used = |copy: &PathBuf| {
            needed(copy) || workers.values().any(|worker| worker.opened.contains(copy))
        };
        let (used, unused) = std::mem::take(&mut self.copies)
            .into_iter()
            .partition(|copy| is_used(copy));
        self.copies = used;
        unused.into_iter().collect()
    }

    /// Sends a signal to the processes of all workers.
    pub(super) fn kill_all(&self, signal: Signal) {
        for worker in self.workers.values() {
            worker.link.kill(signal);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers that take part in loads.
    pub(super) fn taking_part(&self) -> Vec<WorkerId> {
        let is_there = |(_, worker): &(&WorkerId, &Worker)| worker.is_ready && !worker.is_leaving;
        let ready = self.workers.iter().filter(is_there);
        ready.map(|(&id, _)| id).collect()
    }

    /// Whether so many workers serve, and no other is there.
    pub(super) fn is_steady(&self, wanted: usize) -> bool {
        let serves = |worker: &Worker| worker.accepts && !worker.is_leaving;
        self.workers.len() == wanted && self.workers.values().all(serves)
    }

    /// The ways to all workers, for another image of this process. None when one is not open.
    pub(super) fn ways(&self) -> Option<Vec<Way>> {
        let way = |(&id, worker): (&WorkerId, &Worker)| {
            let process = worker.link.process.as_ref()?;
            Some(Way {
                id,
                pid: process.pid?,
                channel: process.channel.get()?.clone(),
                words: process.words.clone()?,
                opened: worker.opened.clone(),
            })
        };
        self.workers.iter().map(way).collect()
    }

    /// The number of the last worker.
    pub(super) fn last_id(&self) -> WorkerId {
        self.last
    }

    /// Goes on with the workers of an earlier image of this process, which serve.
    pub(super) fn adopt(
        &mut self,
        links: BTreeMap<WorkerId, (Link, BTreeSet<PathBuf>)>,
        last: WorkerId,
    ) {
        self.last = last;
        self.accepts = true;
        for (id, (link, opened)) in links {
            self.add(id, link);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.is_ready = true;
                worker.accepts = true;
                worker.opened = opened;
            }
        }
    }

    /// The workers that were not told to stop, with their processes and their ages.
    pub(super) fn ages(&self) -> Vec<(WorkerId, i32, Duration)> {
        let there = self.workers.iter().filter(|(_, worker)| !worker.is_leaving);
        let age = |(&id, worker): (&WorkerId, &Worker)| {
            let pid = worker.link.process.as_ref()?.pid?;
            Some((id, pid, worker.since.elapsed()))
        };
        there.filter_map(age).collect()
    }

    /// Tells one worker.
    pub(super) fn send(&mut self, worker: WorkerId, order: Order) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            if let Order::Load { started, .. } = &order {
                worker.opened.insert(started.copy.clone());
            }
            worker.link.send(order);
        }
    }

    /// Tells all workers that take orders.
    pub(super) fn send_all(&self, order: &Order) {
        for worker in self.workers.values().filter(|worker| worker.is_ready) {
            worker.link.send(order.clone());
        }
    }

    /// A worker takes orders, and starts these generations before it accepts connections. True when it
    /// accepts from now on.
    pub(super) fn boot(&mut self, id: WorkerId, starts: Vec<Started>) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        worker.is_ready = true;
        for started in starts {
            worker.opened.insert(started.copy.clone());
            worker
                .booting
                .insert(started.app.clone(), started.generation);
            worker.link.send(Order::Load {
                started,
                serve: true,
                state: None,
            });
        }
        self.accept_if_booted(id)
    }
    /// A worker starts what it could not start before.
    pub(super) fn boot_again(&mut self, id: WorkerId, started: Started, state: Option<Vec<u8>>) {
        let booting = (started.app.clone(), started.generation);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.extend([booting]);
        }
        let order = Order::Load {
            started,
            serve: true,
            state,
        };
        self.send(id, order);
    }

    /// Whether this load is one of those that a worker begins with.
    pub(super) fn boots(&self, worker: WorkerId, app: &str, generation: u64) -> bool {
        let worker = self.workers.get(&worker);
        worker.is_some_and(|worker| worker.booting.get(app) == Some(&generation))
    }

    /// A generation that a worker begins with serves, or did not start. True when the worker accepts
    /// connections from now on.
    pub(super) fn booted(&mut self, id: WorkerId, app: &str) -> bool {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.remove(app);
        }
        self.accept_if_booted(id)
    }

    /// Whether a worker is there that was not told to stop.
    pub(super) fn is_there(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| !worker.is_leaving)
    }

    /// Tells a worker to end, as another one has taken its place and waits for the state of the apps
    /// `give`.
    pub(super) fn leave(&mut self, id: WorkerId, patience: Duration, give: Vec<String>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                patience,
                shared: true,
                give,
            });
        }
    }

    pub(super) fn note_step(&mut self, worker: WorkerId, app: &str, generation: u64, step: Step) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.insert((app.to_owned(), generation), step);
        }
    }

    /// A load in a worker is over.
    pub(super) fn load_over(&mut self, worker: WorkerId, app: &str, generation: u64) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.remove(&(app.to_owned(), generation));
        }
    }

    pub(super) fn note_loads_left(&mut self, worker: WorkerId, left: usize) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.loads_left = left;
        }
    }

    /// Whether connections are accepted.
    pub(super) fn accepts(&self) -> bool {
        self.accepts
    }

    /// Connections are accepted from now on, by each worker that has what it begins with.
    pub(super) fn accept(&mut self) {
        self.accepts = true;
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.accept_if_booted(id);
        }
    }

    /// Tells a worker to end.
    fn stop(&mut self, id: WorkerId, patience: Duration) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.link.send(Order::Stop {
                patience,
                shared: false,
                give: Vec::new(),
            });
        }
    }

    /// Ends a worker at once.
    pub(super) fn end(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_leaving = true;
            worker.is_killed = true;
            worker.link.kill(Signal::KILL);
        }
    }

    /// Tells all workers to end.
    pub(super) fn stop_all(&mut self, patience: Duration) {
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.stop(id, patience);
        }
    }

    /// True when the worker accepts from now on.
    fn accept_if_booted(&mut self, id: WorkerId) -> bool {
        let accepts = self.accepts;
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        let begins = accepts && worker.is_ready && worker.booting.is_empty() && !worker.accepts;
        if begins {
            worker.accepts = true;
            worker.link.send(Order::Accept);
        }
        begins
    }
}

impl Worker {
    /// Its process; none when that could not be started.
    pub(super) fn pid(&self) -> Option<i32> {
        match &self.link.process {
            Some(process) => process.pid,
            None => Some(getpid().as_raw_pid()),
        }
    }

    /// When it was started.
    pub(super) fn since(&self) -> SystemTime {
        self.started_at
    }

    /// What it does, in a word.
    pub(super) fn state(&self) -> &'static str {
        match (self.is_leaving, self.accepts) {
            (true, _) => "leaving",
            (false, true) => "serving",
            (false, false) => "starting",
        }
    }

    /// The loads that are in the code of a library.
    pub(super) fn loading(&self) -> Vec<(String, u64)> {
        let in_code = |step: &Step| matches!(step, Step::Open | Step::Init);
        let loads = self.steps.iter().filter(|(_, step)| in_code(step));
        loads.map(|(load, _)| load.clone()).collect()
    }
}
