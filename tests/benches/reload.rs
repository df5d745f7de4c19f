//! `scripts/bench reload`: replaces a plugin many times under load, and reports the results of the requests, the time
//! of each step, and the resources that the process uses. The exit code is 1 when a request failed.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    num::ParseIntError,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::{Parser, value_parser};
use host_tests::{Connection, Ctl, Host, Library, Setup, empty, eventually, within};
use hyper::Request;
use serde_json::Value;
use tokio::{task::JoinSet, time};

/// Replaces a plugin under load
#[derive(Clone, Copy, Debug, Parser)]
struct Plan {
    /// Keep-alive connections, each with one request after the other
    #[arg(long, default_value = "32", value_parser = value_parser!(u64).range(1..))]
    clients: u64,
    /// Connections with long requests
    #[arg(long, default_value = "8")]
    long: u64,
    /// Requests a second, of all clients
    #[arg(long, default_value = "7000", value_parser = value_parser!(u64).range(1..))]
    rate: u64,
    /// How often the plugin is replaced; a process can load about 900 libraries
    #[arg(long, default_value = "500", value_parser = value_parser!(u64).range(20..=900))]
    replacements: u64,
    /// From one replacement to the next, in ms
    #[arg(long, default_value = "60", value_parser = ms)]
    every: Duration,
    /// How long a file must be unchanged, in ms
    #[arg(long, default_value = "20", value_parser = ms)]
    quiet: Duration,
    /// How often a plugin hands its state over
    #[arg(long, default_value = "200", value_parser = value_parser!(u64).range(1..=900))]
    handovers: u64,
    /// The option that cargo passes to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

fn ms(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let plan = Plan::parse();
    let mut failed = replace("stripped", &Library::plugin("versioned").stripped(), plan).await;
    let short = Plan {
        replacements: plan.replacements / 5,
        ..plan
    };
    failed += replace("as it is built", &Library::plugin("versioned"), short).await;
    failed += hand_over(plan.handovers).await;
    ExitCode::from(u8::from(failed > 0))
}

/// The results of the requests, counted by all clients of a run.
#[derive(Debug, Default)]
struct Tally {
    /// The clients stop when this is set.
    done: AtomicBool,
    /// Short requests with a correct response.
    answered: AtomicU64,
    /// Long requests with a correct response.
    long_answered: AtomicU64,
    /// Responses with a wrong status or text.
    failed: AtomicU64,
    /// Connections that broke during a request.
    reset: AtomicU64,
    /// Responses of an older version than an earlier response on the same connection.
    backwards: AtomicU64,
    /// Long responses whose two halves come from different versions.
    mixed: AtomicU64,
    slowest_us: AtomicU64,
}

impl Tally {
    /// Returns the number of requests that went wrong in any way.
    fn failures(&self) -> u64 {
        [&self.failed, &self.reset, &self.backwards, &self.mixed]
            .map(|count| count.load(Relaxed))
            .iter()
            .sum()
    }
}

/// Replaces the plugin under load, prints the results, and returns the number of failures. `title` describes the build
/// of the library.
async fn replace(title: &str, library: &Library, plan: Plan) -> u64 {
    let (host, ctl) = start("libversioned.so", &library.marked("v1"), plan.quiet).await;
    host.serves("/versioned", "v1").await;
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    let pace = Duration::from_secs(plan.clients).div_f64(plan.rate as f64);
    for _ in 0..plan.clients {
        clients.spawn(short_requests(host.address(), pace, Arc::clone(&tally)));
    }
    for number in 0..plan.long {
        let file = host.folder().join(&format!("go{number}"));
        clients.spawn(long_requests(host.address(), file, Arc::clone(&tally)));
    }

    let mut before = Value::Null;
    let began = Instant::now();
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for version in 2..=plan.replacements + 1 {
        if version == FIRST_MEASURED {
            before = wait_until_drained(&ctl).await;
        }
        let next_turn = time::Instant::now() + plan.every;
        let mark = format!("v{version}");
        let next = library.marked(&mark);
        let folder = host.folder().join("libversioned.so");
        // On another thread, so that the clients continue meanwhile, as if another process wrote the file.
        let write = move || {
            let temporary = folder.with_file_name(".next");
            fs::write(&temporary, next.bytes()).and_then(|()| fs::rename(temporary, folder))
        };
        tokio::task::spawn_blocking(write)
            .await
            .expect("it does not panic")
            .expect("the folder is writable");
        let written = Instant::now();
        let mut probe = host.http1().await;
        let serves = async {
            while probe.get("/versioned").await.text() != mark {
                time::sleep(Duration::from_micros(200)).await;
            }
        };
        // The wait fails when the process refuses the load, because it can load only about 900 libraries.
        within("the new version serves (are there loads left?)", serves).await;
        let served = written.elapsed().saturating_sub(plan.quiet);
        steps
            .entry("landed to served".into())
            .or_default()
            .push(served.as_secs_f64() * 1e3);
        let app = ctl.app("versioned").await;
        for (step, ms) in app["ms"].as_object().into_iter().flatten() {
            steps
                .entry(step.replace('_', " "))
                .or_default()
                .push(ms.as_f64().unwrap_or_default());
        }
        time::sleep_until(next_turn).await;
    }
    let after = wait_until_drained(&ctl).await;
    let took = began.elapsed();
    tally.done.store(true, Relaxed);
    clients.join_all().await;

    println!(
        "## {} replacements under load, {title}, {} KiB\n",
        plan.replacements,
        library.bytes().len() >> 10
    );
    report_requests(&tally, took);
    report_steps(&steps);
    report_process(&before, &after, plan.replacements + 2 - FIRST_MEASURED);
    tally.failures()
}

/// The first version that counts for the resources of the process. The first loads and requests also allocate resources
/// that are allocated only once.
const FIRST_MEASURED: u64 = 10;

/// Sends short requests at a steady pace on one connection, and checks that the version never goes back.
async fn short_requests(address: SocketAddr, pace: Duration, tally: Arc<Tally>) {
    let mut turns = time::interval(pace);
    let mut connection = Connection::http1(address).await;
    let mut newest = 0;
    while !tally.done.load(Relaxed) {
        turns.tick().await;
        let began = Instant::now();
        let request = Request::get("/versioned")
            .body(empty())
            .expect("the path is one");
        match connection.exchange(request).await {
            Ok(reply) => {
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                tally.slowest_us.fetch_max(took, Relaxed);
                match version(&reply.text()).filter(|_| reply.status == 200) {
                    None => tally.failed.fetch_add(1, Relaxed),
                    Some(version) if version < newest => tally.backwards.fetch_add(1, Relaxed),
                    Some(version) => {
                        newest = version;
                        tally.answered.fetch_add(1, Relaxed)
                    }
                };
            }
            Err(_) => {
                tally.reset.fetch_add(1, Relaxed);
                connection = Connection::http1(address).await;
            }
        }
    }
}

/// Sends requests whose response lasts for 150 ms, so that the plugin is replaced while a response is half sent. Both
/// halves must come from the same version.
async fn long_requests(address: SocketAddr, file: std::path::PathBuf, tally: Arc<Tally>) {
    let path = format!("/versioned/stream?{}", file.display());
    while !tally.done.load(Relaxed) {
        let mut connection = Connection::http1(address).await;
        let request = Request::get(&path).body(empty()).expect("the path is one");
        let exchange = tokio::spawn(async move { connection.exchange(request).await });
        time::sleep(Duration::from_millis(150)).await;
        fs::write(&file, "").expect("the folder is writable");
        match exchange.await.expect("it does not panic") {
            Ok(reply) => {
                let text = reply.text();
                let halves = text.split_once('+').filter(|_| reply.status == 200);
                match halves {
                    Some((first, second)) if first == second => {
                        tally.long_answered.fetch_add(1, Relaxed)
                    }
                    Some(_) => tally.mixed.fetch_add(1, Relaxed),
                    None => tally.failed.fetch_add(1, Relaxed),
                };
            }
            Err(_) => {
                tally.reset.fetch_add(1, Relaxed);
            }
        }
        fs::remove_file(&file).expect("it was written above");
    }
}

/// Reloads a plugin that counts requests in memory and hands the count over, while 64 clients send requests. Prints the
/// results, and returns the number of failures and lost counts.
async fn hand_over(reloads: u64) -> u64 {
    let counter = |version: u64| {
        Library::plugin("counter")
            .stripped()
            .marked(&format!("v{version}"))
    };
    let (host, ctl) = start("libcounter.so", &counter(1), Duration::from_millis(20)).await;
    host.serves("/counter/version", "v1").await;
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        let (address, tally) = (host.address(), Arc::clone(&tally));
        clients.spawn(async move {
            let mut connection = Connection::http1(address).await;
            while !tally.done.load(Relaxed) {
                let began = Instant::now();
                let request = Request::get("/counter")
                    .body(empty())
                    .expect("the path is one");
                let reply = connection.exchange(request).await;
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                tally.slowest_us.fetch_max(took, Relaxed);
                let is_good = reply.is_ok_and(|reply| reply.status == 200);
                let count = if is_good {
                    &tally.answered
                } else {
                    &tally.failed
                };
                count.fetch_add(1, Relaxed);
            }
        });
    }
    let began = Instant::now();
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..reloads {
        let proof = ctl.json(&["reload", "counter"]).await;
        for (step, ms) in proof["ms"].as_object().into_iter().flatten() {
            steps
                .entry(step.replace('_', " "))
                .or_default()
                .push(ms.as_f64().unwrap_or_default());
        }
    }
    let took = began.elapsed();
    tally.done.store(true, Relaxed);
    clients.join_all().await;
    let counted: u64 = host
        .get("/counter")
        .await
        .text()
        .parse()
        .unwrap_or_default();
    let lost = (tally.answered.load(Relaxed) + 1).abs_diff(counted);

    println!("## {reloads} reloads with handover, 64 clients that count\n");
    report_requests(&tally, took);
    println!("| updates lost | {lost} |");
    report_steps(&steps);
    tally.failures() + lost
}

/// Starts a host with one library. Returns the host and its control socket.
async fn start(file: &str, library: &Library, quiet: Duration) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .library(file, library)
        .arg(ctl.option())
        .arg("--threads=2");
    let host = setup
        .arg(format!("--quiet-time={}ms", quiet.as_millis()))
        .start()
        .await;
    (host, ctl)
}

/// Waits until no generation drains, and returns the output of `host ctl plugins`.
async fn wait_until_drained(ctl: &Ctl) -> Value {
    eventually("nothing drains", async || {
        let report = ctl.json(&["plugins"]).await;
        let others = report["apps"][0]["others"].as_array();
        others.is_some_and(Vec::is_empty).then_some(report)
    })
    .await
}

/// Returns the number of a version such as "v7".
fn version(text: &str) -> Option<u64> {
    text.strip_prefix('v')?.parse().ok()
}

fn report_requests(tally: &Tally, took: Duration) {
    let count = |count: &AtomicU64| count.load(Relaxed);
    let answered = count(&tally.answered);
    println!("| requests | |\n|---|---|");
    println!(
        "| answered | {answered}, {:.0} a second |",
        answered as f64 / took.as_secs_f64()
    );
    println!(
        "| that lasted over swaps | {} |",
        count(&tally.long_answered)
    );
    println!("| failed | {} |", count(&tally.failed));
    println!("| reset | {} |", count(&tally.reset));
    println!(
        "| of an older version than before | {} |",
        count(&tally.backwards)
    );
    println!("| of two versions | {} |", count(&tally.mixed));
    println!(
        "| slowest | {:.1} ms |",
        count(&tally.slowest_us) as f64 / 1e3
    );
}

fn report_steps(steps: &BTreeMap<String, Vec<f64>>) {
    println!("\n| step, ms | median | p95 | slowest |\n|---|---|---|---|");
    for (step, times) in steps {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        println!(
            "| {step} | {:.2} | {:.2} | {:.2} |",
            at(50),
            at(95),
            at(100)
        );
    }
    println!();
}

/// Prints the resources of the process before and after the measured replacements, and its growth for each generation.
fn report_process(before: &Value, after: &Value, generations: u64) {
    let app = &after["apps"][0];
    let process = |report: &Value, key: &str| report["process"][key].as_u64().unwrap_or_default();
    let kib = |bytes: u64| bytes as f64 / 1024.0 / generations as f64;
    println!("| process | before | after |\n|---|---|---|");
    for key in ["threads", "files", "maps"] {
        println!(
            "| {key} | {} | {} |",
            process(before, key),
            process(after, key)
        );
    }
    println!(
        "| loads left | {} | {} |",
        before["loads_left"], after["loads_left"]
    );
    let growth =
        process(after, "anonymous_bytes").saturating_sub(process(before, "anonymous_bytes"));
    println!(
        "| memory of its own, KiB a generation | | {:.0} |",
        kib(growth)
    );
    let retired = &app["retired"];
    let bytes = retired["footprint"]["anonymous_bytes"]
        .as_u64()
        .unwrap_or_default();
    let ended = retired["generations"].as_u64().unwrap_or(1).max(1);
    println!(
        "| of that in the library's data | | {} |\n",
        (bytes >> 10) / ended
    );
}
