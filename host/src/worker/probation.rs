//! Whether a new generation is worse than the one before it.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::generation::Generation;

/// What a new generation must not do, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationPolicy {
    /// How long it is watched.
    pub duration: Duration,
    /// How many failures are too many.
    pub failures: u64,
    /// What part of the requests these must be besides, in percent.
    pub percent: u64,
}

/// What came of a probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbationVerdict {
    /// It is no worse.
    Passed,
    /// It failed too often.
    Failed {
        /// Responses of status 5xx, or panics: whichever were more.
        failures: u64,
        /// The requests that it got.
        requests: u64,
    },
}

/// Watches `new` until its time is over, or it turns out worse than `old` was.
pub async fn watch(
    new: Arc<Generation>,
    old: Arc<Generation>,
    policy: ProbationPolicy,
) -> ProbationVerdict {
    let end = Instant::now() + policy.duration;
    while Instant::now() < end {
        time::sleep(CHECK_INTERVAL.min(policy.duration)).await;
        let (is, was) = (FailureCount::of(&new), FailureCount::of(&old));
        let is_any_better = !was.is_bad(policy) && !old.faults.is_quarantined();
        if is.is_bad(policy) && is_any_better {
            return ProbationVerdict::Failed {
                failures: is.failures,
                requests: is.requests,
            };
        }
    }
    ProbationVerdict::Passed
}

/// What a generation did so far.
#[derive(Clone, Copy)]
struct FailureCount {
    failures: u64,
    requests: u64,
}

impl FailureCount {
    fn of(generation: &Generation) -> Self {
        let faults = &generation.faults;
        Self {
            // A panic in a request is also a response of 500.
            failures: faults.errors().max(faults.panics()),
            requests: generation.app.requests(),
        }
    }

    fn is_bad(self, policy: ProbationPolicy) -> bool {
        self.failures >= policy.failures
            && self.failures.saturating_mul(100) >= policy.percent.saturating_mul(self.requests)
    }
}

/// How often to look.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_are_bad_unless_they_are_a_small_part() {
        let policy = ProbationPolicy {
            duration: Duration::ZERO,
            failures: 5,
            percent: 10,
        };
        for (failures, requests, expected) in [
            (4, 4, false),
            (5, 5, true),
            (5, 50, true),
            (5, 51, false),
            (1_000, 9_000, true),
            // Of a task in the background.
            (5, 0, true),
        ] {
            assert_eq!(FailureCount { failures, requests }.is_bad(policy), expected);
        }
    }
}
