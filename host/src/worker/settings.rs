//! The settings for loading apps, which are taken from the configuration.

use std::time::Duration;

use super::probation::ProbationPolicy;
use crate::{apps::quarantine::PanicLimit, config::Config};

/// The settings for loading apps.
#[derive(Clone, Copy, Debug)]
pub struct LoadSettings {
    /// How long the start of an app may take.
    pub init_timeout: Duration,
    /// How long requests may wait for a handover of state.
    pub handover_timeout: Duration,
    /// How long a generation may drain after it was replaced or removed.
    pub graceful_timeout: Duration,
    /// The number of threads of a plugin's runtime.
    pub app_threads: u32,
    /// How many panics, within which time, put a generation into quarantine.
    pub panic_limit: PanicLimit,
    /// The conditions under which a new generation fails its probation.
    pub probation: ProbationPolicy,
}

impl LoadSettings {
    /// Returns the settings from the server's configuration.
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
