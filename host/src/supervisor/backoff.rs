//! Decides how soon a worker is started again after a crash, and when an app has crashed too often. Both
//! are plain values: the caller passes the time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// The delay before the next start of a worker after crashes that no app is blamed for: none at first,
/// then 1, 2, 4 and so on up to 30 seconds.
///
/// Crashes that an app is blamed for need no delay, because [`Crashes`] puts the app aside.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// When the last restart was due, and the delay before that restart.
    last: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Records a crash and returns the delay before the next start. After [`QUIET`] without a crash the
    /// delays begin anew.
    pub fn crashed(&mut self, now: Instant) -> Duration {
        let wait = match self.last {
            Some((start, wait)) if now.saturating_duration_since(start) < QUIET => {
                (2 * wait).clamp(FIRST, LONGEST)
            }
            _ => Duration::ZERO,
        };
        self.last = Some((now + wait, wait));
        wait
    }
}

/// The first delay above zero.
const FIRST: Duration = Duration::from_secs(1);

/// The longest delay.
const LONGEST: Duration = Duration::from_secs(30);

/// How long a worker must run without a crash until the delays begin anew.
pub const QUIET: Duration = Duration::from_secs(60);

/// Counts crashes by the key that is blamed, such as an app and the hash of its library.
#[derive(Clone, Debug)]
pub struct Crashes<K> {
    limit: usize,
    window: Duration,
    times: BTreeMap<K, VecDeque<Instant>>,
}

/// What a crash means for the key that is blamed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashVerdict {
    /// Start again. This many crashes happened within the window, which is below the limit.
    Again(usize),
    /// Put aside. This many crashes happened within the window, which reaches the limit.
    PutAside(usize),
}

impl<K: Ord> Crashes<K> {
    /// Creates a counter. A key is put aside after `limit` crashes within `window`; a limit of 0 never puts
    /// aside.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        Self {
            limit,
            window,
            times: BTreeMap::new(),
        }
    }

    /// Records a crash that `who` is blamed for.
    pub fn crashed(&mut self, who: K, now: Instant) -> CrashVerdict {
        let is_old = |time: &Instant| now.saturating_duration_since(*time) > self.window;
        self.times.retain(|_, times| {
            while times.front().is_some_and(is_old) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let times = self.times.entry(who).or_default();
        times.push_back(now);
        match times.len() {
            count if self.limit > 0 && count >= self.limit => CrashVerdict::PutAside(count),
            count => CrashVerdict::Again(count),
        }
    }

    /// Forgets the crashes of `who`. An operator who asks for another try gets the full limit again.
    pub fn forget(&mut self, who: &K) {
        self.times.remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_begin_anew_after_a_quiet_time() {
        // When the worker crashes, counted from the time it was due to start, and the wait that
        // follows.
        let table = [
            (0, 0),
            (0, 1),
            (1, 2),
            (59, 4),
            (5, 8),
            (0, 16),
            (0, 30),
            (59, 30),
            (60, 0),
            (3, 1),
            (600, 0),
        ];
        let (mut backoff, mut start) = (Backoff::default(), Instant::now());
        for (at, (ran, expected)) in table.into_iter().enumerate() {
            let wait = backoff.crashed(start + Duration::from_secs(ran));
            assert_eq!(wait, Duration::from_secs(expected), "crash {at}");
            start += Duration::from_secs(ran) + wait;
        }
    }

    #[test]
    fn a_crash_while_waiting_does_not_shorten_the_wait() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let waits = [0; 4].map(|_| backoff.crashed(now).as_secs());
        assert_eq!(waits, [0, 1, 2, 4]);
    }

    #[test]
    fn crashes_within_the_window_put_aside() {
        use CrashVerdict::{Again, PutAside};
        let (a, b) = (("a", 1), ("b", 1));
        // The limit, and crashes: by whom, at which second, and what they mean.
        let table: [(usize, &[(_, u64, CrashVerdict)]); 5] = [
            (
                3,
                &[
                    (a, 0, Again(1)),
                    (a, 30, Again(2)),
                    (a, 60, PutAside(3)),
                    (a, 60, PutAside(4)),
                ],
            ),
            (
                3,
                &[
                    (a, 0, Again(1)),
                    (a, 30, Again(2)),
                    (a, 61, Again(2)),
                    (a, 90, PutAside(3)),
                ],
            ),
            (
                2,
                &[
                    (a, 0, Again(1)),
                    (b, 1, Again(1)),
                    (("a", 2), 2, Again(1)),
                    (b, 3, PutAside(2)),
                ],
            ),
            (1, &[(a, 0, PutAside(1))]),
            (0, &[(a, 0, Again(1)), (a, 0, Again(2)), (a, 0, Again(3))]),
        ];
        for (limit, crashes) in table {
            let (mut count, start) = (Crashes::new(limit, Duration::from_secs(60)), Instant::now());
            for &(who, second, expected) in crashes {
                let verdict = count.crashed(who, start + Duration::from_secs(second));
                assert_eq!(verdict, expected, "limit {limit}, {who:?} at {second}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_or_old_takes_no_memory() {
        let (mut crashes, start) = (Crashes::new(2, Duration::from_secs(1)), Instant::now());
        crashes.crashed(1, start);
        crashes.forget(&1);
        assert_eq!(crashes.crashed(1, start), CrashVerdict::Again(1));
        crashes.crashed(2, start + Duration::from_secs(9));
        assert_eq!(crashes.times.len(), 1);
    }
}
