//! The fleet: all workers, and what the supervisor knows of each without asking.

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
    last: WorkerId,
    /// Whether workers may accept connections: true once the first loads are over.
    accepts: bool,
    /// Private copies that workers had opened which have exited. A copy stays until no running worker and
    /// no app needs it.
    copies: BTreeSet<PathBuf>,
}

/// What the next image of this process needs to know of a running worker.
#[derive(Debug)]
pub(super) struct OpenLink {
    pub(super) id: WorkerId,
    pub(super) pid: i32,
    pub(super) channel: Sender<Order>,
    pub(super) words: OutputTail,
    pub(super) opened: BTreeSet<PathBuf>,
}

impl Fleet {
    /// Returns the number for a new worker.
    pub(super) fn next_id(&mut self) -> WorkerId {
        self.last += 1;
        self.last
    }

    /// Returns the number of workers that were not told to stop.
    pub(super) fn staying_count(&self) -> usize {
        let staying = self.workers.values().filter(|worker| !worker.is_leaving);
        staying.count()
    }

    /// Returns up to `count` workers to stop when there are too many: first those that do not serve yet,
    /// then the oldest, because leaked memory is highest there. Workers in `except` are not returned.
    pub(super) fn least_needed(&self, count: usize, except: &[WorkerId]) -> Vec<WorkerId> {
        let staying = self.workers.iter();
        let staying = staying.filter(|(id, worker)| !worker.is_leaving && !except.contains(id));
        let mut staying: Vec<_> = staying.map(|(&id, worker)| (worker.accepts, id)).collect();
        staying.sort_unstable();
        staying.into_iter().take(count).map(|(_, id)| id).collect()
    }

    /// Returns whether any worker accepts connections.
    pub(super) fn serves(&self) -> bool {
        self.workers.values().any(|worker| worker.accepts)
    }

    /// Returns all workers with their records.
    pub(super) fn workers(&self) -> impl Iterator<Item = (WorkerId, &WorkerRecord)> {
        self.workers.iter().map(|(&id, worker)| (id, worker))
    }

    pub(super) fn add(&mut self, id: WorkerId, link: Link) {
        let worker = WorkerRecord {
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

    /// Removes a worker that has exited, and returns its record.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<WorkerRecord> {
        let left = self.workers.remove(&worker)?;
        self.copies.extend(left.opened.iter().cloned());
        Some(left)
    }

    /// Returns the copies that a worker has opened.
    pub(super) fn opened(&self, worker: WorkerId) -> impl Iterator<Item = &Path> {
        let worker = self.workers.get(&worker);
        worker
            .into_iter()
            .flat_map(|worker| worker.opened.iter().map(PathBuf::as_path))
    }

    /// Returns, once each, the copies that only exited workers had opened and that are not `needed`.
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

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Returns the workers that take orders and were not told to stop. Loads go to these workers.
    pub(super) fn ready_workers(&self) -> Vec<WorkerId> {
        let is_there =
            |(_, worker): &(&WorkerId, &WorkerRecord)| worker.is_ready && !worker.is_leaving;
        let ready = self.workers.iter().filter(is_there);
        ready.map(|(&id, _)| id).collect()
    }

    /// Returns whether exactly `wanted` workers exist and all of them serve.
    pub(super) fn is_steady(&self, wanted: usize) -> bool {
        let serves = |worker: &WorkerRecord| worker.accepts && !worker.is_leaving;
        self.workers.len() == wanted && self.workers.values().all(serves)
    }

    /// Returns the connections to all workers, for the next image of this process. Returns `None` when a
    /// channel is not open yet.
    pub(super) fn open_links(&self) -> Option<Vec<OpenLink>> {
        let way = |(&id, worker): (&WorkerId, &WorkerRecord)| {
            let process = worker.link.process.as_ref()?;
            Some(OpenLink {
                id,
                pid: process.pid?,
                channel: process.channel.get()?.clone(),
                words: process.words.clone()?,
                opened: worker.opened.clone(),
            })
        };
        self.workers.iter().map(way).collect()
    }

    /// Returns the number of the newest worker.
    pub(super) fn last_id(&self) -> WorkerId {
        self.last
    }

    /// Takes over the workers of an earlier image of this process. They serve already.
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

    /// Returns the process number and age of each worker that was not told to stop.
    pub(super) fn ages(&self) -> Vec<(WorkerId, i32, Duration)> {
        let there = self.workers.iter().filter(|(_, worker)| !worker.is_leaving);
        let age = |(&id, worker): (&WorkerId, &WorkerRecord)| {
            let pid = worker.link.process.as_ref()?.pid?;
            Some((id, pid, worker.since.elapsed()))
        };
        there.filter_map(age).collect()
    }

    /// Sends an order to one worker.
    pub(super) fn send(&mut self, worker: WorkerId, order: Order) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            if let Order::Load { staged, .. } = &order {
                worker.opened.insert(staged.copy.clone());
            }
            worker.link.send(order);
        }
    }

    /// Sends an order to all workers that are ready for orders.
    pub(super) fn send_all(&self, order: &Order) {
        for worker in self.workers.values().filter(|worker| worker.is_ready) {
            worker.link.send(order.clone());
        }
    }

    /// Returns whether a worker exists and was not told to stop.
    pub(super) fn is_staying(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| !worker.is_leaving)
    }

    /// Records the current step of a load. If the worker dies, an app in the step `open` or `init` is suspected.
    pub(super) fn record_step(&mut self, worker: WorkerId, app: &str, generation: u64, step: Step) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.insert((app.to_owned(), generation), step);
        }
    }

    /// Records that a load in a worker is over.
    pub(super) fn load_ended(&mut self, worker: WorkerId, app: &str, generation: u64) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.remove(&(app.to_owned(), generation));
        }
    }

    /// Records how many more libraries a worker can load.
    pub(super) fn set_loads_left(&mut self, worker: WorkerId, left: usize) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.loads_left = left;
        }
    }
}
