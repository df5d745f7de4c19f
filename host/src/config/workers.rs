//! The settings of worker processes.

use std::time::Duration;

use super::{
    available_cores,
    quantity::{body_size, duration, number, positive_duration},
};

/// The number of worker processes, and when the host replaces one of them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerConfig {
    /// Processes that load plugins and serve, each with --threads; auto for one a core. A crash of a
    /// plugin ends its process, and the host starts another one. 0 keeps everything in one process: then a
    /// crash ends the host
    #[arg(id = "workers", long = "workers", value_name = "NUMBER", default_value = "1", value_parser = parse_worker_count)]
    pub count: u16,

    /// How many crashes of workers an app may cause within --crash-window: then its last good version serves
    /// instead, and its library is not loaded again until it changes; 0 for no limit. One crash while the
    /// app starts is enough
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = number::<u16>(0..=u16::MAX.into()))]
    pub crash_limit: u16,

    /// Replace a worker by a fresh one, without losing a request, when it takes more memory than this; none
    /// for no limit
    #[arg(long, value_name = "SIZE", default_value = "none", value_parser = body_size)]
    pub worker_max_memory: u64,

    /// Replace a worker by a fresh one, without losing a request, when it has run for this time, give or
    /// take a tenth [default: never]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub worker_max_age: Option<Duration>,

    /// Replace a worker by a fresh one, without losing a request, when the copies of libraries that were
    /// replaced in it take more space on the disk than this, or than is left there; none for no limit
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = body_size)]
    pub worker_max_copies: u64,

    /// How long a handler may block the thread that serves it, before its worker is ended and replaced; the
    /// log says where the thread was. Waiting (await) and streaming are progress; 0 for no limit
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub worker_timeout: Duration,

    /// The time within which crashes are counted for --crash-limit
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = positive_duration)]
    pub crash_window: Duration,
}

/// Parses the number of worker processes: a number, or `auto` for one worker per core.
fn parse_worker_count(text: &str) -> Result<u16, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(available_cores());
    }
    // 0 is valid: the worker is then a task of the host's own process.
    let number = text.parse().ok().filter(|&number| number <= MAX_WORKERS);
    number.ok_or_else(|| format!("expected a number up to {MAX_WORKERS}, or auto for one a core"))
}

/// The largest number of workers. The limit exists because each worker needs memory for every plugin.
pub const MAX_WORKERS: u16 = 256;
