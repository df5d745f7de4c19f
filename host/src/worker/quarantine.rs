//! The quarantine: a generation that panics too often gets no more requests, because panics may have left its
//! state inconsistent.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How many panics within which time put a generation into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanicLimit {
    /// The number of panics; 0 means no limit.
    pub panics: u16,
    /// The length of the window.
    pub window: Duration,
}

/// Whether a generation is in quarantine. The quarantine lasts until the generation is replaced.
#[derive(Debug)]
pub struct Quarantine {
    limit: PanicLimit,
    /// The times of the last panics within the window.
    panics: Mutex<VecDeque<Instant>>,
    is_on: AtomicBool,
}

impl Quarantine {
    /// Creates the state of a new generation.
    #[must_use]
    pub fn new(limit: PanicLimit) -> Self {
        Self {
            limit,
            panics: Mutex::default(),
            is_on: AtomicBool::new(false),
        }
    }

    /// Counts a panic. Returns the limit if this panic reaches it.
    pub fn panicked(&self, now: Instant) -> Option<PanicLimit> {
        if self.limit.panics == 0 || self.is_on() {
            return None;
        }
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        while panics
            .front()
            .is_some_and(|then| now.duration_since(*then) > self.limit.window)
        {
            panics.pop_front();
        }
        panics.push_back(now);
        let too_many = panics.len() >= usize::from(self.limit.panics);
        (too_many && !self.is_on.swap(true, Ordering::Relaxed)).then_some(self.limit)
    }

    /// Returns whether the generation gets no more requests.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
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
        let after = |seconds| quarantine.panicked(start + Duration::from_secs(seconds));
        for seconds in [0, 6, 12, 18, 24] {
            assert_eq!(after(seconds), None);
        }
        assert!(!quarantine.is_on());
        assert!(after(25).is_some());
        assert!(quarantine.is_on());
        assert_eq!(after(26), None, "it is told once");
    }

    #[test]
    fn without_a_limit_it_never_begins() {
        let (quarantine, now) = (quarantine(0), Instant::now());
        assert!((0..1000).all(|_| quarantine.panicked(now).is_none()));
        assert!(!quarantine.is_on());
    }
}
