//! Judges whether a new generation is worse than the previous generation.
//!
//! The counters of both generations are compared every 50 ms. The new generation fails its probation if the new
//! generation has too many failures and the previous generation has not. If both have too many failures, the cause is
//! outside of the app, such as a database that is down, and a rollback would not help.

use std::{sync::Arc, time::Duration};

use crate::apps::generation::Generation;
use tokio::time::{self, Instant};

/// The conditions under which a new generation fails its probation, and the length of the probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationPolicy {
    /// How long the probation lasts.
    pub duration: Duration,
    /// The smallest number of failures with which a generation fails.
    pub failures: u64,
    /// The smallest percentage of failures among the requests with which a generation fails. A generation fails only if
    /// both this condition and that of `failures` are met.
    pub percent: u64,
}

/// The verdict of a probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbationVerdict {
    /// The new generation is not worse than the previous generation.
    Passed,
    /// The new generation failed too often.
    Failed {
        /// The number of responses with status 5xx, or of panics, whichever is greater.
        failures: u64,
        /// The number of requests.
        requests: u64,
    },
}

/// Compares `new` with `old` until the probation is over, or until `new` is found to be worse. Returns the verdict.
pub async fn judge(
    new: Arc<Generation>,
    old: Arc<Generation>,
    policy: ProbationPolicy,
) -> ProbationVerdict {
    let end = Instant::now() + policy.duration;
    while Instant::now() < end {
        time::sleep(CHECK_INTERVAL.min(policy.duration)).await;
        let (new_count, old_count) = (FailureCount::of(&new), FailureCount::of(&old));
        let is_old_good = !old_count.is_bad(policy) && !old.faults.is_quarantined();
        if new_count.is_bad(policy) && is_old_good {
            return ProbationVerdict::Failed {
                failures: new_count.failures,
                requests: new_count.requests,
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
    /// Reads the counters of a generation.
    fn of(generation: &Generation) -> Self {
        let faults = &generation.faults;
        Self {
            // Errors and panics are not added up, because a panic in a request is also counted as a response with
            // status 500. Panics can outnumber errors, because code outside of requests may panic too.
            failures: faults.errors().max(faults.panics()),
            requests: generation.app.requests(),
        }
    }

    /// Returns whether the failures are too many and too large a part of the requests.
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
            // Failures of a background task, without any request.
            (5, 0, true),
        ] {
            assert_eq!(FailureCount { failures, requests }.is_bad(policy), expected);
        }
    }
}
