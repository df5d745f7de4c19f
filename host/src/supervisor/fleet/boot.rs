//! The start of a worker: it loads everything that serves, and only then accepts connections.

use super::Fleet;
use crate::{
    orders::{Order, StagedGeneration},
    supervisor::app::WorkerId,
};

impl Fleet {
    /// Marks a worker as ready, and orders it to load the generations that serve. Returns whether the worker
    /// accepts connections at once, which is so when nothing has to be loaded.
    pub(in crate::supervisor) fn boot(
        &mut self,
        id: WorkerId,
        starts: Vec<StagedGeneration>,
    ) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        worker.is_ready = true;
        for staged in starts {
            worker.opened.insert(staged.copy.clone());
            worker.booting.insert(staged.app.clone(), staged.generation);
            worker.link.send(Order::Load {
                staged,
                serve: true,
                state: None,
            });
        }
        self.accept_if_booted(id)
    }

    /// Orders a worker to load a generation again that failed at its boot.
    pub(in crate::supervisor) fn retry_boot(
        &mut self,
        id: WorkerId,
        staged: StagedGeneration,
        state: Option<Vec<u8>>,
    ) {
        let booting = (staged.app.clone(), staged.generation);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.extend([booting]);
        }
        let order = Order::Load {
            staged,
            serve: true,
            state,
        };
        self.send(id, order);
    }

    /// Returns whether this load is part of the worker's boot.
    pub(in crate::supervisor) fn is_booting(
        &self,
        worker: WorkerId,
        app: &str,
        generation: u64,
    ) -> bool {
        let worker = self.workers.get(&worker);
        worker.is_some_and(|worker| worker.booting.get(app) == Some(&generation))
    }

    /// Records that a load of the boot is over, with success or not. Returns whether the worker begins to
    /// accept connections by that. A failed app does not hold up the others: the worker answers 503 for it.
    pub(in crate::supervisor) fn finish_boot(&mut self, id: WorkerId, app: &str) -> bool {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.remove(app);
        }
        self.accept_if_booted(id)
    }

    /// Returns whether workers may accept connections.
    pub(in crate::supervisor) fn accepts(&self) -> bool {
        self.accepts
    }

    /// Lets workers accept connections from now on. Each begins when its boot is complete.
    pub(in crate::supervisor) fn accept(&mut self) {
        self.accepts = true;
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.accept_if_booted(id);
        }
    }

    /// Orders the worker to accept connections if its boot is complete. Returns whether it was ordered to.
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
