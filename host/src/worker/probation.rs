//! Judges whether a new generation is worse than the one before it.
//!
//! The counters of both generations are compared every 50 ms. A new generation fails if it has too many
//! failures while the old one had not: if both fail, the cause is elsewhere, such as a database, and a rollback
//! would not help.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::generation::Generation;

/// When a new generation has failed, and for how long it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationPolicy {
    /// How long the probation lasts.
    pub duration: Duration,
    /// The number of failures that are too many.
    pub failures: u64,
    /// The smallest share of failures among the requests, in percent. Both conditions must hold.
    pub percent: u64,
}

/// The verdict of a probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbationVerdict {
    /// The new generation is no worse.
    Passed,
    /// The new generation failed too often.
    Failed {
        /// The number of responses with status 5xx, or of panics, whichever is greater.
        failures: u64,
        /// The number of requests.
        requests: u64,
    },
}

/// Watches `new` until the probation is over or `new` turns out worse than `old`.
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

/// The counters of a generation at one moment.
#[derive(Clone, Copy)]
struct FailureCount {
    failures: u64,
    requests: u64,
}

impl FailureCount {
    fn of(generation: &Generation) -> Self {
        let faults = &generation.faults;
        Self {
            // A panic in a request is also a response with status 500, so the two are not added up.
            failures: faults.errors().max(faults.panics()),
            requests: generation.app.requests(),
        }
    }

    fn is_bad(self, policy: ProbationPolicy) -> bool {
        self.failures >= policy.failures
            && self.failures.saturating_mul(100) >= policy.percent.saturating_mul(self.requests)
    }
}

/// How often the counters are compared.
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
