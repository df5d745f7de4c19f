//! Builds the parts of a worker from the configuration.

use std::{net::TcpListener, sync::Arc};

use tokio::runtime::Handle;

use super::{
    life::WorkerParts,
    registry::Registry,
    serving::{Serving, Tokens},
    settings::LoadSettings,
};
use crate::{
    config::Config,
    http::{dispatch::Dispatch, request_record::RequestRecorder},
    log::{access::AccessLog, filter::Filter, output::Output},
};

/// The logs of a worker.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The log filter.
    pub filter: Filter,
    /// The log.
    pub output: Output,
    /// The access log.
    pub access: Option<Output>,
}

impl Logs {
    /// Returns all outputs.
    #[must_use]
    pub fn outputs(&self) -> Vec<Output> {
        let access = self.access.iter().cloned();
        access.chain([self.output.clone()]).collect()
    }
}

/// Returns the parts of a worker that accepts from `listeners` and serves on `threads`.
#[must_use]
pub fn parts(
    config: &Config,
    listeners: Vec<TcpListener>,
    logs: Logs,
    threads: &Handle,
) -> WorkerParts {
    let tokens = Tokens::default();
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
        serving: Serving::new(listeners, threads.clone(), dispatch, &config.limits, tokens),
    }
}
