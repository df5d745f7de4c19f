//! The start of a worker: it loads everything that serves, and only then accepts connections.

use super::Fleet;
use crate::{
    orders::{Order, Started},
    supervisor::app::WorkerId,
};

impl Fleet {
    /// A worker takes orders, and starts these generations before it accepts connections. True when it
    /// accepts from now on.
    pub(in crate::supervisor) fn boot(&mut self, id: WorkerId, starts: Vec<Started>) -> bool {
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
    pub(in crate::supervisor) fn boot_again(
        &mut self,
        id: WorkerId,
        started: Started,
        state: Option<Vec<u8>>,
    ) {
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
    pub(in crate::supervisor) fn boots(
        &self,
        worker: WorkerId,
        app: &str,
        generation: u64,
    ) -> bool {
        let worker = self.workers.get(&worker);
        worker.is_some_and(|worker| worker.booting.get(app) == Some(&generation))
    }

    /// A generation that a worker begins with serves, or did not start. True when the worker accepts
    /// connections from now on.
    pub(in crate::supervisor) fn booted(&mut self, id: WorkerId, app: &str) -> bool {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.remove(app);
        }
        self.accept_if_booted(id)
    }

    /// Whether connections are accepted.
    pub(in crate::supervisor) fn accepts(&self) -> bool {
        self.accepts
    }

    /// Connections are accepted from now on, by each worker that has what it begins with.
    pub(in crate::supervisor) fn accept(&mut self) {
        self.accepts = true;
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.accept_if_booted(id);
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
