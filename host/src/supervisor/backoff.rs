//! Decides how soon a worker is started again after a crash, and when an app has crashed too often. [`Backoff`] and
//! [`Crashes`] are plain values and read no clock: the caller passes the current time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Computes the delay before the next start of a worker, after crashes that no app is blamed for. The first crash
/// causes no delay. The next crashes cause delays of 1, 2, 4 seconds and so on, up to 30 seconds.
///
/// Crashes that an app is blamed for need no delay, because the app is put aside when it has crashed too often.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// When the last restart was due, and the delay before that restart.
    last_start: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Records a crash and returns the delay before the next start. After [`RESET_AFTER`] without a crash, the delays
    /// start again at zero.
    pub fn crashed(&mut self, now: Instant) -> Duration {
        // If `now` is before the last start, because several workers crash while a start is delayed, the duration is
        // zero.
        let wait = match self.last_start {
            Some((start, wait)) if now.saturating_duration_since(start) < RESET_AFTER => {
                (2 * wait).clamp(FIRST_DELAY, MAX_DELAY)
            }
            _ => Duration::ZERO,
        };
        // The time without a crash is measured from the start of the next worker, and not from this crash.
        self.last_start = Some((now + wait, wait));
        wait
    }
}

/// The first delay above zero.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// How long the workers must run without a crash, until the delays start again at zero.
pub const RESET_AFTER: Duration = Duration::from_secs(60);

/// Counts crashes by the key that is blamed, for example an app and the hash of its library.
#[derive(Clone, Debug)]
pub struct Crashes<K> {
    /// The number of crashes within the window at which a key is put aside. Zero means no limit.
    limit: usize,
    window: Duration,
    /// The times of the crashes within the window, the oldest first.
    times: BTreeMap<K, VecDeque<Instant>>,
}

/// The consequence of a crash for the key that is blamed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashVerdict {
    /// Start again. The number of crashes within the window is below the limit.
    Restart(usize),
    /// Put aside. The number of crashes within the window has reached the limit.
    PutAside(usize),
}

impl<K: Ord> Crashes<K> {
    /// Creates a counter. A key is put aside after `limit` crashes within `window`. With a limit of 0, no key is ever
    /// put aside.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        Self {
            limit,
            window,
            times: BTreeMap::new(),
        }
    }

    /// Records a crash that `key` is blamed for.
    pub fn crashed(&mut self, key: K, now: Instant) -> CrashVerdict {
        let is_old = |time: &Instant| now.saturating_duration_since(*time) > self.window;
        // Old crashes of all keys are removed here, so that a key that never crashes again uses no memory.
        self.times.retain(|_, times| {
            while times.front().is_some_and(is_old) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let times = self.times.entry(key).or_default();
        times.push_back(now);
        match times.len() {
            count if self.limit > 0 && count >= self.limit => CrashVerdict::PutAside(count),
            count => CrashVerdict::Restart(count),
        }
    }

    /// Forgets the crashes of `key`, because an operator requests another try: the full limit applies again.
    pub fn forget(&mut self, key: &K) {
        self.times.remove(key);
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
        use CrashVerdict::{PutAside, Restart};
        let (a, b) = (("a", 1), ("b", 1));
        // The limit, and crashes: by whom, at which second, and what they mean.
        let table: [(usize, &[(_, u64, CrashVerdict)]); 5] = [
            (
                3,
                &[
                    (a, 0, Restart(1)),
                    (a, 30, Restart(2)),
                    (a, 60, PutAside(3)),
                    (a, 60, PutAside(4)),
                ],
            ),
            (
                3,
                &[
                    (a, 0, Restart(1)),
                    (a, 30, Restart(2)),
                    (a, 61, Restart(2)),
                    (a, 90, PutAside(3)),
                ],
            ),
            (
                2,
                &[
                    (a, 0, Restart(1)),
                    (b, 1, Restart(1)),
                    (("a", 2), 2, Restart(1)),
                    (b, 3, PutAside(2)),
                ],
            ),
            (1, &[(a, 0, PutAside(1))]),
            (
                0,
                &[(a, 0, Restart(1)), (a, 0, Restart(2)), (a, 0, Restart(3))],
            ),
        ];
        for (limit, crashes) in table {
            let (mut count, start) = (Crashes::new(limit, Duration::from_secs(60)), Instant::now());
            for &(key, second, expected) in crashes {
                let verdict = count.crashed(key, start + Duration::from_secs(second));
                assert_eq!(verdict, expected, "limit {limit}, {key:?} at {second}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_or_old_takes_no_memory() {
        let (mut crashes, start) = (Crashes::new(2, Duration::from_secs(1)), Instant::now());
        crashes.crashed(1, start);
        crashes.forget(&1);
        assert_eq!(crashes.crashed(1, start), CrashVerdict::Restart(1));
        crashes.crashed(2, start + Duration::from_secs(9));
        assert_eq!(crashes.times.len(), 1);
    }
}
