//! The fleet: all workers, and the state of each worker that the supervisor knows without a query.

mod boot;
mod link;
mod stop;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

pub use self::link::Link;
pub(super) use self::link::WorkerProcess;
use self::worker::WorkerRecord;
use super::{app::WorkerId, output_tail::OutputTail};
use crate::{
    channel::Sender,
    orders::{Order, Step},
};

/// All workers, by number.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, WorkerRecord>,
    /// The number of the newest worker.
    last_id: WorkerId,
    /// Whether workers may accept connections: true after the first loads of the server have ended.
    may_accept: bool,
    /// The private copies that exited workers had opened. A copy is removed when no running worker and no app needs it.
    copies_of_exited: BTreeSet<PathBuf>,
}

/// The connection to a running worker, with all that the next image of this process needs to take the worker over.
#[derive(Debug)]
pub(super) struct OpenLink {
    pub(super) id: WorkerId,
    pub(super) pid: i32,
    pub(super) channel: Sender<Order>,
    /// Reads the worker's stdout and stderr.
    pub(super) output: OutputTail,
    /// The private copies that the worker has opened.
    pub(super) opened: BTreeSet<PathBuf>,
}

impl Fleet {
    /// Returns an unused number for a new worker.
    pub(super) fn next_id(&mut self) -> WorkerId {
        self.last_id += 1;
        self.last_id
    }

    /// Returns the number of workers that have no order to stop.
    pub(super) fn staying_count(&self) -> usize {
        let staying = self.workers.values().filter(|worker| !worker.is_leaving);
        staying.count()
    }

    /// Returns up to `count` workers to stop when too many workers run: first the workers that do not serve yet, then
    /// the oldest workers, because they have leaked the most memory. Workers in `except` are not returned.
    pub(super) fn least_needed(&self, count: usize, except: &[WorkerId]) -> Vec<WorkerId> {
        let staying = self.workers.iter();
        let staying = staying.filter(|(id, worker)| !worker.is_leaving && !except.contains(id));
        let mut staying: Vec<_> = staying
            .map(|(&id, worker)| (worker.is_accepting, id))
            .collect();
        // `false` comes before `true`, and a lower number is an older worker.
        staying.sort_unstable();
        staying.into_iter().take(count).map(|(_, id)| id).collect()
    }

    /// Returns whether any worker accepts connections.
    pub(super) fn serves(&self) -> bool {
        self.workers.values().any(|worker| worker.is_accepting)
    }

    /// Returns all workers with their records.
    pub(super) fn workers(&self) -> impl Iterator<Item = (WorkerId, &WorkerRecord)> {
        self.workers.iter().map(|(&id, worker)| (id, worker))
    }

    /// Adds a worker that starts now.
    pub(super) fn add(&mut self, id: WorkerId, link: Link) {
        let worker = WorkerRecord {
            link,
            since: Instant::now(),
            started_at: SystemTime::now(),
            is_ready: false,
            is_accepting: false,
            booting: BTreeMap::new(),
            is_leaving: false,
            is_killed: false,
            steps: BTreeMap::new(),
            opened: BTreeSet::new(),
            // Unknown until the first report.
            loads_left: usize::MAX,
        };
        self.workers.insert(id, worker);
    }

    /// Removes a worker that has exited, and returns its record. Returns `None` if no such worker exists.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<WorkerRecord> {
        let record = self.workers.remove(&worker)?;
        self.copies_of_exited.extend(record.opened.iter().cloned());
        Some(record)
    }

    /// Returns the copies that a worker has opened.
    pub(super) fn opened(&self, worker: WorkerId) -> impl Iterator<Item = &Path> {
        let worker = self.workers.get(&worker);
        worker
            .into_iter()
            .flat_map(|worker| worker.opened.iter().map(PathBuf::as_path))
    }

    /// Returns the copies that only exited workers had opened and for which `needed` returns false. The fleet forgets
    /// these copies, so each copy is returned only once.
    pub(super) fn unused_copies(&mut self, needed: impl Fn(&PathBuf) -> bool) -> Vec<PathBuf> {
        let workers = &self.workers;
        let is_used = |copy: &PathBuf| {
            needed(copy) || workers.values().any(|worker| worker.opened.contains(copy))
        };
        // A new worker may have opened the same copy, because it started the same generation.
        let (used, unused) = std::mem::take(&mut self.copies_of_exited)
            .into_iter()
            .partition(|copy| is_used(copy));
        self.copies_of_exited = used;
        unused.into_iter().collect()
    }

    /// Returns whether all workers have exited.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Returns the workers that are ready for orders and have no order to stop. Loads are sent to these workers.
    pub(super) fn ready_workers(&self) -> Vec<WorkerId> {
        let takes_loads =
            |(_, worker): &(&WorkerId, &WorkerRecord)| worker.is_ready && !worker.is_leaving;
        let ready = self.workers.iter().filter(takes_loads);
        ready.map(|(&id, _)| id).collect()
    }

    /// Returns whether exactly `wanted` workers exist and all of them serve.
    pub(super) fn is_steady(&self, wanted: usize) -> bool {
        let serves = |worker: &WorkerRecord| worker.is_accepting && !worker.is_leaving;
        self.workers.len() == wanted && self.workers.values().all(serves)
    }

    /// Returns the connections to all workers, for the next image of this process. Returns `None` if the channel of
    /// any worker is not open yet.
    pub(super) fn open_links(&self) -> Option<Vec<OpenLink>> {
        let open_link = |(&id, worker): (&WorkerId, &WorkerRecord)| {
            let process = worker.link.process.as_ref()?;
            Some(OpenLink {
                id,
                pid: process.pid?,
                channel: process.channel.get()?.clone(),
                output: process.output.clone()?,
                opened: worker.opened.clone(),
            })
        };
        self.workers.iter().map(open_link).collect()
    }

    /// Returns the number of the newest worker.
    pub(super) fn last_id(&self) -> WorkerId {
        self.last_id
    }

    /// Takes over the workers of an earlier image of this process. These workers serve already.
    pub(super) fn adopt(
        &mut self,
        links: BTreeMap<WorkerId, (Link, BTreeSet<PathBuf>)>,
        last_id: WorkerId,
    ) {
        self.last_id = last_id;
        self.may_accept = true;
        for (id, (link, opened)) in links {
            self.add(id, link);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.is_ready = true;
                worker.is_accepting = true;
                worker.opened = opened;
            }
        }
    }

    /// Returns the process number and the age of each worker that has no order to stop.
    pub(super) fn ages(&self) -> Vec<(WorkerId, i32, Duration)> {
        let staying = self.workers.iter().filter(|(_, worker)| !worker.is_leaving);
        let age = |(&id, worker): (&WorkerId, &WorkerRecord)| {
            let pid = worker.link.process.as_ref()?.pid?;
            Some((id, pid, worker.since.elapsed()))
        };
        staying.filter_map(age).collect()
    }

    /// Sends an order to one worker.
    pub(super) fn send(&mut self, worker: WorkerId, order: Order) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            // Recorded at the order, because the worker may open the copy at any moment from now on.
            if let Order::Load { staged, .. } = &order {
                worker.opened.insert(staged.copy.clone());
            }
            worker.link.send(order);
        }
    }

    /// Sends an order to all workers that are ready for orders.
    pub(super) fn send_all(&self, order: &Order) {
        // A worker that is not ready yet gets the current state of all apps when it is ready.
        for worker in self.workers.values().filter(|worker| worker.is_ready) {
            worker.link.send(order.clone());
        }
    }

    /// Returns whether a worker exists and has no order to stop.
    pub(super) fn is_staying(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| !worker.is_leaving)
    }

    /// Records the current step of a load. If the worker dies, a load in the step `open` or `init` is a suspect.
    pub(super) fn record_step(&mut self, worker: WorkerId, app: &str, generation: u64, step: Step) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.insert((app.to_owned(), generation), step);
        }
    }

    /// Records that a load in a worker has ended, with success or not.
    pub(super) fn load_ended(&mut self, worker: WorkerId, app: &str, generation: u64) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.remove(&(app.to_owned(), generation));
        }
    }

    /// Records how many more libraries a worker can load.
    pub(super) fn set_loads_left(&mut self, worker: WorkerId, loads_left: usize) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.loads_left = loads_left;
        }
    }
}
