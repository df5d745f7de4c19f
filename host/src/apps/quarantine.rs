//! The quarantine: a generation that panics too often gets no more requests, because the panics may have left the state
//! of the app inconsistent.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The number of panics within a time that puts a generation into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanicLimit {
    /// The number of panics. 0 means no limit.
    pub panics: u16,
    /// The time within which the panics must happen.
    pub window: Duration,
}

/// Whether a generation is in quarantine. The quarantine lasts until the generation is replaced.
#[derive(Debug)]
pub struct Quarantine {
    limit: PanicLimit,
    /// The times of the panics within the last window, the oldest first.
    panics: Mutex<VecDeque<Instant>>,
    /// Whether the generation is in quarantine. Separate from the mutex, because every request reads the flag.
    is_active: AtomicBool,
}

impl Quarantine {
    /// Creates the state of a new generation.
    #[must_use]
    pub fn new(limit: PanicLimit) -> Self {
        Self {
            limit,
            panics: Mutex::default(),
            is_active: AtomicBool::new(false),
        }
    }

    /// Counts a panic. Returns the limit if this panic puts the generation into quarantine, and `None` otherwise.
    pub fn count_panic(&self, now: Instant) -> Option<PanicLimit> {
        if self.limit.panics == 0 || self.is_active() {
            return None;
        }
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        while panics
            .front()
            .is_some_and(|time| now.duration_since(*time) > self.limit.window)
        {
            panics.pop_front();
        }
        panics.push_back(now);
        let is_reached = panics.len() >= usize::from(self.limit.panics);
        // `swap` lets only one of several threads report the limit.
        (is_reached && !self.is_active.swap(true, Ordering::Relaxed)).then_some(self.limit)
    }

    /// Returns whether the generation gets no more requests.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine(panics: u16) -> Quarantine {
        Quarantine::new(PanicLimit {
            panics,
            window: Duration::from_secs(10),
        })
    }

    #[test]
    fn only_panics_within_the_window_count() {
        let (quarantine, start) = (quarantine(3), Instant::now());
        let after = |seconds| quarantine.count_panic(start + Duration::from_secs(seconds));
        for seconds in [0, 6, 12, 18, 24] {
            assert_eq!(after(seconds), None);
        }
        assert!(!quarantine.is_active());
        assert!(after(25).is_some());
        assert!(quarantine.is_active());
        assert_eq!(after(26), None, "the limit is reported once");
    }

    #[test]
    fn without_a_limit_it_never_begins() {
        let (quarantine, now) = (quarantine(0), Instant::now());
        assert!((0..1000).all(|_| quarantine.count_panic(now).is_none()));
        assert!(!quarantine.is_active());
    }
}
