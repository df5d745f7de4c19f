//! The workers that there are, and what each of them has.

mod boot;
mod link;
mod stop;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

pub use self::link::Link;
pub(super) use self::link::Process;
use self::worker::Worker;
use super::{app::WorkerId, last_words::LastWords};
use crate::{
    channel::Sender,
    orders::{Order, Step},
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

/// An open way to a worker process.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) id: WorkerId,
    pub(super) pid: i32,
    pub(super) channel: Sender<Order>,
    pub(super) words: LastWords,
    pub(super) opened: BTreeSet<PathBuf>,
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

    /// Whether a worker is there that was not told to stop.
    pub(super) fn is_there(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| !worker.is_leaving)
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
}
