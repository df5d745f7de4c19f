//! How a worker loads apps, from the configuration.

use std::time::Duration;

use super::{probation::ProbationPolicy, quarantine::PanicLimit};
use crate::config::Config;

/// How a worker loads apps, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct LoadSettings {
    /// How long a start may take.
    pub init_timeout: Duration,
    /// How long requests may wait for a handover.
    pub handover_timeout: Duration,
    /// How long requests may stay in a generation that is replaced or removed.
    pub graceful_timeout: Duration,
    /// How many threads a plugin's runtime has.
    pub app_threads: u32,
    /// How often a generation may panic.
    pub panic_limit: PanicLimit,
    /// When a new generation that is watched has failed.
    pub probation: ProbationPolicy,
}

impl LoadSettings {
    /// The settings of a server.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let reload = &config.reload;
        Self {
            init_timeout: config.init_timeout,
            handover_timeout: reload.handover_timeout,
            graceful_timeout: config.graceful_timeout,
            app_threads: config.app_threads().into(),
            panic_limit: PanicLimit {
                panics: config.panic_limit,
                window: config.panic_window,
            },
            probation: ProbationPolicy {
                duration: reload.probation,
                failures: reload.rollback_failures,
                percent: reload.rollback_percent,
            },
        }
    }
}
