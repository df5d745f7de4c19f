//! The budget of loads: estimates how many more libraries this process can load, and refuses loads when the budget is
//! used up.
//!
//! Libraries are never unloaded, so each load uses up resources for good. The scarcest resource is pthread keys, of
//! which a process has 1,024. A load without a free key would abort the process, and no code could catch the abort.
//! Therefore loads are refused while some keys are still free. The second resource is memory maps (`vm.max_map_count`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use plugin_api::host::remaining_thread_keys;

use crate::resources;

/// Counts loads, and refuses them before a resource runs out.
#[derive(Debug)]
pub struct Budget {
    /// The number of free pthread keys before the first load.
    keys_at_start: usize,
    loads: AtomicUsize,
    /// The number of running loads. Their libraries may not have allocated a key yet, because a library allocates a key
    /// when a thread first uses a thread-local of the library.
    running: Arc<AtomicUsize>,
}

/// Counts a load as running until the value is dropped.
#[derive(Debug)]
pub struct LoadPermit(Arc<AtomicUsize>);

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    /// Creates the budget of a process that has not loaded a library yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys_at_start: remaining_thread_keys(),
            loads: AtomicUsize::new(0),
            running: Arc::default(),
        }
    }

    /// Counts a load, and returns a permit for the load.
    ///
    /// # Errors
    ///
    /// When the budget is used up.
    pub fn acquire(&self) -> Result<LoadPermit, BudgetError> {
        let loads = self.loads();
        // The load is counted before the check, so that loads that begin at the same time count each other.
        self.running.fetch_add(1, Ordering::SeqCst);
        let permit = LoadPermit(Arc::clone(&self.running));
        if self.loads_left_excluding(1) == 0 {
            return Err(BudgetError {
                loads,
                keys: remaining_thread_keys(),
                maps: resources::count_memory_maps(),
            });
        }
        // Relaxed, because the number is only an input of an estimate. A failed load is not subtracted, because its
        // library may stay mapped.
        self.loads.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }

    /// Returns the number of loads so far, including failed loads.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Returns the estimated number of libraries that can still be loaded.
    #[must_use]
    pub fn remaining_loads(&self) -> usize {
        self.loads_left_excluding(0)
    }

    /// Returns the estimated number of libraries that can still be loaded beside the running loads. `own` of the
    /// running loads are not counted, because they belong to the caller.
    fn loads_left_excluding(&self, own: usize) -> usize {
        let keys = remaining_thread_keys();
        let running = self.running.load(Ordering::SeqCst).saturating_sub(own);
        let by_keys = loads_left(self.keys_at_start, keys, self.loads()).saturating_sub(running);
        // A kernel that does not report its limit does not limit the budget.
        let maps = resources::max_memory_maps()
            .map(|limit| limit.saturating_sub(resources::count_memory_maps()));
        let by_maps = maps.map_or(usize::MAX, |maps| {
            maps.saturating_sub(RESERVED_MAPS) / MAPS_PER_LIBRARY
        });
        by_keys.min(by_maps)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns how many loads the free keys allow. The estimated need of a load is the average number of keys that the
/// loads so far have allocated, rounded up, and at least one key.
fn loads_left(keys_at_start: usize, keys: usize, loads: usize) -> usize {
    let allocated = keys_at_start.saturating_sub(keys);
    let per_load = allocated.div_ceil(loads.max(1)).max(1);
    keys.saturating_sub(RESERVED_KEYS) / per_load
}

/// The error when the budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process has loaded {loads} libraries, which are never unloaded, and has {keys} thread-local keys and {maps} maps; \
     replace it to load more: `host ctl recycle`, or with --workers=0 restart the host"
)]
pub struct BudgetError {
    /// The number of loads so far.
    loads: usize,
    /// The number of free pthread keys.
    keys: usize,
    /// The number of memory maps of the process.
    maps: usize,
}

/// The number of keys that are reserved, because libraries that are loaded already may allocate more keys.
const RESERVED_KEYS: usize = 24;

/// The estimated number of memory maps of a library.
const MAPS_PER_LIBRARY: usize = 8;

/// The number of memory maps that are reserved for the heap and for threads.
const RESERVED_MAPS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_load_is_estimated_from_the_loads_so_far() {
        assert_eq!(loads_left(1000, 1000, 0), 976);
        assert_eq!(loads_left(1000, 990, 10), 966);
        assert_eq!(loads_left(1000, 980, 10), 478);
        assert_eq!(loads_left(1000, 24, 976), 0);
        // Other code of the process may also allocate and free keys.
        assert_eq!(loads_left(1000, 1010, 10), 986);
    }

    #[test]
    fn a_fresh_process_can_load_hundreds() {
        let budget = Budget::new();
        let left = budget.remaining_loads();
        assert!((500..1024).contains(&left), "{left}");
        let permits: Vec<_> = (0..10).map(|_| budget.acquire().unwrap()).collect();
        assert_eq!(budget.loads(), 10);
        // Each running load may still allocate a key.
        assert!(budget.remaining_loads() <= left - permits.len());
    }
}
