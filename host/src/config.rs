//! The settings of a running host, typed and checked. Most fields are options of the command line: the doc
//! comment of such a field is the option's text in `--help`.

use std::{path::PathBuf, thread, time::Duration};

use clap::ArgAction;
use plugin_api::level::Directives;

use self::{
    path::absolute_path,
    quantity::{body_size, boolean, duration, header_bytes, number, positive_duration},
    value::request_path,
};

pub use self::{
    app::{AppConfig, AppError},
    error::ValueError,
    value::{BindAddress, ControlSocket, DebugHeader, LineSink, LogFormat, Mount},
    workers::{MAX_WORKERS, WorkerConfig},
};
use crate::log::{LogOptions, access::AccessFormat};

mod app;
mod error;
pub(crate) mod path;
pub(crate) mod quantity;
mod value;
mod workers;

/// The settings of a host that serves.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder of plugins: the host loads the libraries in it, and loads them again when they change
    #[arg(long, value_name = "DIR", default_value = "./plugins", value_parser = absolute_path())]
    pub plugins: PathBuf,

    /// Where to serve: an address or host name, and a port, of which 0 takes a free one
    /// (repeatable, or separated by commas)
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8000",
        value_delimiter = ','
    )]
    pub bind: Vec<BindAddress>,

    /// Log level of the host and of all plugins: trace, debug, info, warn, error, critical or off,
    /// and TARGET=LEVEL for a target or APP#=LEVEL for all that an app logs, as in info,shop=debug,cart#=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Directives,

    /// Unix socket on which `host ctl` reaches this host, for its own user only, as in
    /// unix:/run/host.sock [default: none]
    #[arg(long, value_name = "unix:PATH")]
    pub control: Option<ControlSocket>,

    /// Serve a plugin below a path, such as /shop=shop, and not at the path that the plugin asks for
    /// (repeatable, or separated by commas)
    #[arg(long, value_name = "PATH=PLUGIN", value_delimiter = ',')]
    pub mount: Vec<Mount>,

    /// Folder for the private copies that plugins are loaded from; its file system must not be mounted
    /// noexec [default: .host in the folder of plugins]
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    state_dir: Option<PathBuf>,

    /// Threads that serve connections
    #[arg(long, value_name = "NUMBER", default_value_t = available_cores(), value_parser = number::<u16>(1..=1024))]
    pub threads: u16,

    /// Threads of each app's own runtime, which run the tasks that the app spawns [default: as many as
    /// --threads, and at least 2]
    #[arg(long, value_name = "NUMBER", value_parser = number::<u16>(1..=1024))]
    app_threads: Option<u16>,

    /// How long a file in the folder of plugins must be unchanged before it is loaded
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub quiet_time: Duration,

    /// How often the folder of plugins is read for changes that the system did not report
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = positive_duration)]
    pub rescan: Duration,

    /// How long a plugin may take to start; after that it counts as failed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    pub init_timeout: Duration,

    /// How long the host waits at its start for the plugins to start, before it accepts connections;
    /// after that, requests for a plugin that has not started are answered with 503
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub ready_timeout: Duration,

    /// How many panics within --panic-window are too many: then the plugin gets no more requests until it
    /// is replaced, and clients get 503; 0 for no limit
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = number::<u16>(0..=u16::MAX.into()))]
    pub panic_limit: u16,

    /// The time within which panics are counted for --panic-limit
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = positive_duration)]
    pub panic_window: Duration,

    /// How long requests in flight may go on when the host stops, or when their plugin is replaced or
    /// removed; 0s aborts them at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub graceful_timeout: Duration,

    /// Settings of the worker processes.
    #[command(flatten)]
    pub workers: WorkerConfig,

    /// Settings of reloads.
    #[command(flatten)]
    pub reload: ReloadConfig,

    /// Limits on clients.
    #[command(flatten)]
    pub limits: ClientLimits,

    /// Settings of the log and the access log.
    #[command(flatten)]
    pub log: LogConfig,

    /// The tables `[app.NAME]` of the configuration file.
    #[arg(skip)]
    pub apps: Vec<AppConfig>,

    /// Whether `plugins` has its default value. The host makes a missing default folder; any other folder
    /// must exist.
    #[arg(skip)]
    pub is_default_folder: bool,

    /// Warnings about environment variables whose names are similar to the variables of settings.
    #[arg(skip)]
    pub variable_warnings: Vec<String>,
}

impl Config {
    /// Returns the folder for private copies of libraries.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir
            .clone()
            .unwrap_or_else(|| self.plugins.join(".host"))
    }

    /// Returns the number of threads of each app's runtime. The default is at least two, because a task that
    /// blocks a thread must not stop the app's other tasks, timers and sockets.
    #[must_use]
    pub fn app_threads(&self) -> u16 {
        self.app_threads.unwrap_or_else(|| self.threads.max(2))
    }
}

/// How the host finds new versions of plugins, and when the host rolls back to the previous version.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Reloading")]
pub struct ReloadConfig {
    /// How the host notices changes in the folder of plugins: by events of the system, or by reading the
    /// folder twice a second, for file systems without events
    #[arg(long, value_name = "HOW", default_value = "events", ignore_case = true)]
    pub watch: WatchMode,

    /// How long requests may wait while a plugin hands its state over to its new version; after that,
    /// the old version goes on serving
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
    pub handover_timeout: Duration,

    /// Roll back to the previous version when a new one fails soon after it took over; see --probation
    /// and --rollback-*
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = boolean,
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    pub auto_rollback: bool,

    /// How long a new version is watched for failures; the previous version is kept running meanwhile
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = positive_duration)]
    pub probation: Duration,

    /// How many panics or responses of status 5xx within --probation cause a rollback
    #[arg(long, value_name = "NUMBER", default_value = "5", value_parser = number::<u64>(1..=u32::MAX.into()))]
    pub rollback_failures: u64,

    /// Roll back only if these failures are also at least this percentage of the new version's requests
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = number::<u64>(0..=100))]
    pub rollback_percent: u64,
}

/// How changes in the folder of plugins are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WatchMode {
    /// By events of the system.
    Events,
    /// By reading the folder twice a second.
    Poll,
}

/// Limits on clients, so that no client takes the resources that other clients need.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct ClientLimits {
    /// Bytes of a request's line and headers, from 8KiB to 16MiB; more is answered with 431
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = header_bytes)]
    pub max_header_bytes: u32,

    /// Headers of a request; more are answered with 431
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = number::<u16>(1..=10_000))]
    pub max_headers: u16,

    /// How long a client may take to send a request's line and headers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
    pub header_timeout: Duration,

    /// How long a client may stall: send no part of a request's body while the app waits for it (then 408),
    /// or take no part of a response
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = positive_duration)]
    pub body_timeout: Duration,

    /// Bytes of a request's body, or none for no limit; more is answered with 413. Bodies are
    /// streamed: this bounds the memory of an app that collects one
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = body_size)]
    pub max_body_size: u64,

    /// How long a connection may stay open with no request on it
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = positive_duration)]
    pub keep_alive: Duration,

    /// Connections open at once; more wait to be accepted. Each needs a file descriptor (`ulimit
    /// -n`), of which 64 are kept for the operator
    #[arg(long, value_name = "NUMBER", default_value = "10000", value_parser = number::<u32>(1..=u32::MAX.into()))]
    pub max_connections: u32,
}

/// The log and the access log.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// How lines of the log look: text for people, or json, one object a line
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    pub log_format: LogFormat,

    /// Append the log to this file, not to stderr; SIGUSR1 reopens it, as after a rotation
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    pub log_file: Option<PathBuf>,

    /// Log requests with this header at debug, whatever the level; best set as HOST_DEBUG_HEADER, because
    /// other users can see the command line
    #[arg(long, value_name = "NAME=SECRET")]
    pub debug_header: Option<DebugHeader>,

    /// Whether to log, line by line, what plugins print to stdout and stderr
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = boolean,
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    pub capture_output: bool,

    /// Append a line for each request to this file, or - for stdout; SIGUSR1 reopens it
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<LineSink>,

    /// How lines of the access log look: common, combined, json, or a format of Gunicorn's atoms,
    /// as in '%(h)s "%(r)s" %(s)s %(M)s'
    #[arg(long, value_name = "FORMAT", default_value = "combined")]
    pub access_log_format: AccessFormat,

    /// Leave out requests for these paths from the access log when they succeed, as in /healthz
    /// (repeatable, or separated by commas)
    #[arg(long, value_name = "PATH", value_delimiter = ',', value_parser = request_path)]
    pub access_log_skip: Vec<String>,
}

impl LogConfig {
    /// Returns the options of the log's writer.
    #[must_use]
    pub fn options(&self) -> LogOptions<'_> {
        LogOptions {
            file: self.log_file.as_deref(),
            is_json: self.log_format == LogFormat::Json,
            has_debug_header: self.debug_header.is_some(),
        }
    }
}

/// Returns the number of processors that this process may use, at most 1024. Returns 1 if the system does not
/// report the number.
fn available_cores() -> u16 {
    thread::available_parallelism().map_or(1, |cores| {
        u16::try_from(cores.get()).unwrap_or(u16::MAX).min(1024)
    })
}
