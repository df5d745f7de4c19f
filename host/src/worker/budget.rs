//! The budget of loads: how many more libraries this process can load.
//!
//! Libraries are never unloaded, so each load uses up resources for good. The scarcest are pthread keys, of
//! which a process has 1,024. A load without a free key would abort the process, and no code could catch
//! that. So loads are refused while some keys are still free. The second resource is memory maps
//! (`vm.max_map_count`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use plugin_api::host::thread_keys_left;

use super::process;

/// Counts loads, and refuses them before a resource runs out.
#[derive(Debug)]
pub struct Budget {
    keys_at_start: usize,
    loads: AtomicUsize,
    /// The number of loads under way. Their keys may not be taken yet: a library takes a key when a thread
    /// first uses one of its thread-locals.
    under_way: Arc<AtomicUsize>,
}

/// Counts a load as under way until dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    /// Creates the budget of a process that has not loaded a library yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys_at_start: thread_keys_left(),
            loads: AtomicUsize::new(0),
            under_way: Arc::default(),
        }
    }

    /// Takes one load from the budget.
    ///
    /// # Errors
    ///
    /// When the budget is used up.
    pub fn take(&self) -> Result<Permit, BudgetError> {
        let loads = self.loads();
        // Count first and check then, so that loads that begin at the same time see each other.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let permit = Permit(Arc::clone(&self.under_way));
        if self.left_beside(1) == 0 {
            return Err(BudgetError {
                loads,
                keys: thread_keys_left(),
                maps: process::maps(),
            });
        }
        self.loads.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }

    /// Returns the number of loads so far, including failed ones.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Returns about how many more libraries can be loaded.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left_beside(0)
    }

    /// Returns about how many more libraries can be loaded, not counting `own` of the loads under way.
    fn left_beside(&self, own: usize) -> usize {
        let keys = thread_keys_left();
        let under_way = self.under_way.load(Ordering::SeqCst).saturating_sub(own);
        let by_keys = loads_left(self.keys_at_start, keys, self.loads()).saturating_sub(under_way);
        let maps = process::max_maps().map(|limit| limit.saturating_sub(process::maps()));
        let by_maps = maps.map_or(usize::MAX, |maps| maps.saturating_sub(MAPS_KEPT) / MAPS);
        by_keys.min(by_maps)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns how many loads the free keys allow. A load is estimated to take the average number of keys of the
/// loads so far, rounded up, and at least one.
fn loads_left(keys_at_start: usize, keys: usize, loads: usize) -> usize {
    let taken = keys_at_start.saturating_sub(keys);
    let each = taken.div_ceil(loads.max(1)).max(1);
    keys.saturating_sub(KEYS_KEPT) / each
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process has loaded {loads} libraries, which are never unloaded, and has {keys} thread-local keys and {maps} maps; \
     restart the host to load more"
)]
pub struct BudgetError {
    loads: usize,
    keys: usize,
    maps: usize,
}

/// Keys that are reserved, because libraries that are loaded already can take more.
const KEYS_KEPT: usize = 24;

/// The estimated number of memory maps of a library.
const MAPS: usize = 8;

/// Memory maps that are reserved for heap and threads.
const MAPS_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loads_took_is_what_they_will_take() {
        assert_eq!(loads_left(1000, 1000, 0), 976);
        assert_eq!(loads_left(1000, 990, 10), 966);
        assert_eq!(loads_left(1000, 980, 10), 478);
        assert_eq!(loads_left(1000, 24, 976), 0);
        // Keys may also be taken and given back by others.
        assert_eq!(loads_left(1000, 1010, 10), 986);
    }

    #[test]
    fn a_fresh_process_can_load_hundreds() {
        let budget = Budget::new();
        let left = budget.left();
        assert!((500..1024).contains(&left), "{left}");
        let permits: Vec<_> = (0..10).map(|_| budget.take().unwrap()).collect();
        assert_eq!(budget.loads(), 10);
        // Each load that is under way may still take a key.
        assert!(budget.left() <= left - permits.len());
    }
}
