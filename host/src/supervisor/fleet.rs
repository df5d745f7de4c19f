//! The workers that there are, and what each of them has.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::app::WorkerId;
use crate::{
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
}

#[derive(Debug)]
struct Worker {
    link: Link,
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

/// The way to a worker.
#[derive(Clone, Debug)]
pub struct Link(mpsc::UnboundedSender<Order>);

impl Link {
    /// The way to a worker that is a task of this process.
    #[must_use]
    pub fn local(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self(orders)
    }

    /// Tells the worker. One that is gone is known to be by other ways.
    fn send(&self, order: Order) {
        let _ = self.0.send(order);
    }
}

impl Fleet {
    pub(super) fn add(&mut self, link: Link) -> WorkerId {
        self.last += 1;
        let worker = Worker {
            link,
            is_ready: false,
            accepts: false,
            booting: BTreeMap::new(),
            steps: BTreeMap::new(),
            loads_left: usize::MAX,
        };
        self.workers.insert(self.last, worker);
        self.last
    }

    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers that take part in loads.
    pub(super) fn taking_part(&self) -> Vec<WorkerId> {
        let ready = self.workers.iter().filter(|(_, worker)| worker.is_ready);
        ready.map(|(&id, _)| id).collect()
    }

    /// Tells one worker.
    pub(super) fn send(&self, worker: WorkerId, order: Order) {
        if let Some(worker) = self.workers.get(&worker) {
            worker.link.send(order);
        }
    }

    /// Tells all workers that take orders.
    pub(super) fn send_all(&self, order: &Order) {
        for worker in self.workers.values().filter(|worker| worker.is_ready) {
            worker.link.send(order.clone());
        }
    }

    /// A worker takes orders, and starts these generations before it accepts connections.
    pub(super) fn boot(&mut self, id: WorkerId, starts: Vec<Started>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.is_ready = true;
        for started in starts {
            worker
                .booting
                .insert(started.app.clone(), started.generation);
            worker.link.send(Order::Load {
                started,
                serve: true,
            });
        }
        self.accept_if_booted(id);
    }

    /// Whether this load is one of those that a worker begins with.
    pub(super) fn boots(&self, worker: WorkerId, app: &str, generation: u64) -> bool {
        let worker = self.workers.get(&worker);
        worker.is_some_and(|worker| worker.booting.get(app) == Some(&generation))
    }

    /// A generation that a worker begins with serves. False when it is none of those.
    pub(super) fn booted(&mut self, id: WorkerId, app: &str, generation: u64) -> bool {
        if !self.boots(id, app, generation) {
            return false;
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.remove(app);
        }
        self.accept_if_booted(id);
        true
    }

    /// A generation that a worker begins with did not start: the worker serves the others. False
    /// when it is none of those.
    pub(super) fn boot_failed(&mut self, id: WorkerId, app: &str, generation: u64) -> bool {
        self.booted(id, app, generation)
    }

    pub(super) fn note_step(&mut self, worker: WorkerId, app: &str, generation: u64, step: Step) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.steps.insert((app.to_owned(), generation), step);
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

    fn accept_if_booted(&mut self, id: WorkerId) {
        let accepts = self.accepts;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if accepts && worker.is_ready && worker.booting.is_empty() && !worker.accepts {
            worker.accepts = true;
            worker.link.send(Order::Accept);
        }
    }
}
