//! Builds the parts of a worker from the configuration. Used by worker processes, and by a server that is one process.

use std::{net::TcpListener, sync::Arc};

use tokio::runtime::Handle;

use super::{
    life::WorkerParts,
    serving::{ConnectionTokens, Serving},
    settings::LoadSettings,
};
use crate::{
    apps::registry::Registry,
    config::Config,
    http::{dispatch::Dispatch, request_record::RequestRecorder},
    log::{access::AccessLog, filter::Filter, output::Output},
};

/// The logs of a worker.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The log filter, which decides which lines are written.
    pub filter: Filter,
    /// The file or stream to which the log is written.
    pub output: Output,
    /// The file or stream to which the access log is written. `None` without an access log.
    pub access: Option<Output>,
}

impl Logs {
    /// Returns the outputs of the log and of the access log.
    #[must_use]
    pub fn outputs(&self) -> Vec<Output> {
        let access = self.access.iter().cloned();
        access.chain([self.output.clone()]).collect()
    }
}

/// Builds the parts of a worker that accepts connections from `listeners` and serves them in `runtime`.
#[must_use]
pub fn worker_parts(
    config: &Config,
    listeners: Vec<TcpListener>,
    logs: Logs,
    runtime: &Handle,
) -> WorkerParts {
    let tokens = ConnectionTokens::default();
    let access = logs.access.clone().map(|output| {
        let (format, skip) = (&config.log.access_log_format, &config.log.access_log_skip);
        let log = AccessLog::new(format.clone(), output, skip.clone(), tokens.abort.clone());
        Arc::new(log)
    });
    let recorder = RequestRecorder {
        debug_header: config.log.debug_header.clone(),
        access,
    };
    let registry = Arc::new(Registry::default());
    let dispatch = Dispatch::new(Arc::clone(&registry), &config.limits, recorder);
    let outputs = logs.outputs();
    WorkerParts {
        settings: LoadSettings::of(config),
        registry,
        filter: logs.filter,
        outputs,
        serving: Serving::new(listeners, runtime.clone(), dispatch, &config.limits, tokens),
    }
}
