//! How soon a worker is started again after a crash, and when an app has crashed too often. Both
//! are values: the caller says what time it is.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// The wait before the next start of a worker, when nobody is blamed for the crashes: none at
/// first, then 1, 2, 4 and so on up to 30 seconds.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// When the worker whose crash is the last was due to start again, and the wait before that.
    last: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Notes a crash and returns how long to wait before the next start. The waits begin anew after
    /// [`QUIET`] without a crash.
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

/// The first wait that is one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// How long a worker has to run after its start for the waits to begin anew.
pub const QUIET: Duration = Duration::from_secs(60);

/// The crashes that somebody is blamed for, by whom: an app and the hash of its library, say.
#[derive(Clone, Debug)]
pub struct Crashes<K> {
    limit: usize,
    window: Duration,
    times: BTreeMap<K, VecDeque<Instant>>,
}

/// What a crash means for whoever is blamed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Below the limit: this many crashes happened within the window.
    Again(usize),
    /// The limit is reached: to be put aside.
    PutAside(usize),
}

impl<K: Ord> Crashes<K> {
    /// Counts crashes within `window`. `limit` of them, such as `--crash-limit`, put somebody
    /// aside; 0 never does.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        Self {
            limit,
            window,
            times: BTreeMap::new(),
        }
    }

    /// Notes a crash that `who` is blamed for.
    pub fn crashed(&mut self, who: K, now: Instant) -> Verdict {
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
            count if self.limit > 0 && count >= self.limit => Verdict::PutAside(count),
            count => Verdict::Again(count),
        }
    }

    /// Forgets the crashes of `who`, as when an operator asks for another try.
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
        use Verdict::{Again, PutAside};
        let (a, b) = (("a", 1), ("b", 1));
        // The limit, and crashes: by whom, at which second, and what they mean.
        let table: [(usize, &[(_, u64, Verdict)]); 5] = [
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
        assert_eq!(crashes.crashed(1, start), Verdict::Again(1));
        crashes.crashed(2, start + Duration::from_secs(9));
        assert_eq!(crashes.times.len(), 1);
    }
}
