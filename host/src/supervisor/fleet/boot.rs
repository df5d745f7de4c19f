//! The boot of a worker: the worker loads all generations that serve, and accepts connections only after that.

use super::Fleet;
use crate::{
    orders::{Order, StagedGeneration},
    supervisor::app::WorkerId,
};

impl Fleet {
    /// Marks a worker as ready for orders, and orders the worker to load `generations`. Returns whether the worker was
    /// ordered to accept connections at once, because it has nothing to load.
    pub(in crate::supervisor) fn boot(
        &mut self,
        id: WorkerId,
        generations: Vec<StagedGeneration>,
    ) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        worker.is_ready = true;
        for staged in generations {
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

    /// Orders a worker to load a generation again whose load failed at the boot of the worker. `state` is the state
    /// from the worker that was replaced.
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

    /// Returns whether the load of this generation is part of the worker's boot, and has not ended.
    pub(in crate::supervisor) fn is_booting(
        &self,
        worker: WorkerId,
        app: &str,
        generation: u64,
    ) -> bool {
        let worker = self.workers.get(&worker);
        worker.is_some_and(|worker| worker.booting.get(app) == Some(&generation))
    }

    /// Records that a load of the boot has ended, with success or not. Returns whether the worker was ordered to accept
    /// connections, because this was the last load. A failed app does not block the other apps: the worker answers
    /// requests to the failed app with 503.
    pub(in crate::supervisor) fn finish_boot(&mut self, id: WorkerId, app: &str) -> bool {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.booting.remove(app);
        }
        self.accept_if_booted(id)
    }

    /// Returns whether workers may accept connections.
    pub(in crate::supervisor) fn may_accept(&self) -> bool {
        self.may_accept
    }

    /// Lets workers accept connections from now on. Each worker is ordered to accept when its boot is complete.
    pub(in crate::supervisor) fn allow_accepting(&mut self) {
        self.may_accept = true;
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.accept_if_booted(id);
        }
    }

    /// Orders the worker to accept connections if its boot is complete. Returns whether the order was sent.
    fn accept_if_booted(&mut self, id: WorkerId) -> bool {
        let may_accept = self.may_accept;
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        let starts_accepting =
            may_accept && worker.is_ready && worker.booting.is_empty() && !worker.is_accepting;
        if starts_accepting {
            worker.is_accepting = true;
            worker.link.send(Order::Accept);
        }
        starts_accepting
    }
}
