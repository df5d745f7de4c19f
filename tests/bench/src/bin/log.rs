//! `scripts/bench log`: compares the cost of a plugin's log line with the cost of the same line logged by the host
//! itself, in one process and with one output.
//!
//! Arguments: the library of `bench_log`, and the file to log to.

use std::{
    env, error::Error, future::poll_fn, path::PathBuf, sync::Arc, task::Poll, time::Duration,
};

use bytes::Bytes;
use host::{
    apps::{faults::Faults, quarantine::PanicLimit},
    log::{
        self,
        bridge::{self, Bridge},
        origin::Origin,
    },
    settings,
    worker::library,
};
use host_bench::{
    Rounds,
    log_cases::{CASES, Case},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use plugin_api::host::{App, CallInfo, CallResult, Init};
use tokio::runtime::{Builder, Runtime};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(library), Some(file)) = (args.next(), args.next()) else {
        return Err("expected the library of bench_log, and the file to log to".into());
    };
    let mut flags: Vec<_> = ["host", "--log-level=info", "--log-file"]
        .map(Into::into)
        .into();
    flags.push(file);
    let config = settings::parse(&flags)?.config;
    let log = log::init(config.log.options(), config.log_level.clone())?;
    let plugin = Plugin::load(library.into(), &log)?;

    println!(
        "{:<10} {:>10} {:>10} {:>7}   quarters",
        "case", "plugin", "host", "ratio"
    );
    for case in &CASES {
        let mut rounds = Rounds::default();
        let iterations = iterations(case);
        for _ in 0..ROUNDS {
            let per = |time: Duration| time.as_nanos() as f64 / iterations as f64;
            let ours = plugin.run(case, iterations)?;
            rounds.add(per(ours), per((case.run)(iterations)));
        }
        let (ours, theirs) = rounds.medians();
        let [low, ratio, high] = rounds.ratios();
        let name = case.name;
        println!("{name:<10} {ours:>7.1} ns {theirs:>7.1} ns {ratio:>7.2}   {low:.2} to {high:.2}");
    }
    Ok(())
}

/// The loaded plugin, and the runtime on which its requests are polled.
struct Plugin {
    app: &'static App,
    runtime: Runtime,
}

impl Plugin {
    fn load(library: PathBuf, log: &log::Log) -> Result<Self, Box<dyn Error>> {
        let plugin = library::open(&library)?;
        log.filter
            .follow("bench_log".to_owned(), move |level| plugin.set_level(level));
        let origin = Origin {
            plugin: bridge::intern("bench_log"),
            generation: 1,
        };
        let limit = PanicLimit {
            panics: 1,
            window: Duration::MAX,
        };
        let bridge = Bridge::new(origin, Arc::new(Faults::new(limit)));
        let init = Init {
            name: "bench_log",
            mount: "/",
            config: None,
            previous_state: None,
            thread_name: "bench_log",
            generation: 1,
            timeout: Duration::ZERO,
            worker_threads: 1,
        };
        Ok(Self {
            app: plugin.init(bridge, &init)?,
            runtime: Builder::new_current_thread().build()?,
        })
    }

    /// Runs a case in the plugin, and returns the time that the plugin has measured.
    fn run(&self, case: &Case, iterations: u64) -> Result<Duration, Box<dyn Error>> {
        let path = format!("/{}/{iterations}", case.name);
        let (mut head, body) = Request::get(path).body(Empty::<Bytes>::new())?.into_parts();
        let info = CallInfo {
            mount: "/",
            peer: None,
            request_id: None,
            upgrade: None,
        };
        let in_flight = self.app.enter().ok_or("the app is closed")?;
        let mut start = Some((in_flight, info));
        let mut body = Some(body);
        let mut response = Response::new(());
        let body = self.runtime.block_on(async {
            let called = poll_fn(|context| {
                let (in_flight, info) = start.take().expect("it is polled once");
                Poll::Ready(in_flight.call(&mut head, body.take(), info, context, &mut response))
            });
            let body = match called.await {
                CallResult::Answered(body) => body?,
                CallResult::Pending(mut call) => {
                    poll_fn(|context| call.poll_response(context, &mut response)).await?
                }
            };
            Ok::<_, Box<dyn Error>>(body.collect().await?.to_bytes())
        })?;
        Ok(Duration::from_nanos(str::from_utf8(&body)?.parse()?))
    }
}

/// Returns the number of lines that a round logs, which takes some milliseconds.
fn iterations(case: &Case) -> u64 {
    match case.name {
        "empty" | "disabled" => 5_000_000,
        _ => 20_000,
    }
}

const ROUNDS: usize = 31;
