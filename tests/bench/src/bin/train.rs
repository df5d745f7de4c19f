//! The load under which `scripts/release` profiles the host. The compiler optimizes the code that this load runs often.
//! The number of requests of each kind is fixed, so that two profiles are nearly the same.
//!
//! A request that fails is an error, because a host that does not serve must not be released.

#![forbid(unsafe_code)]

use std::{error::Error, net::SocketAddr, path::PathBuf, thread, time::Duration};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures_util::future::try_join_all;
use host_bench::{
    cases::{CASES, Case, HELLO, Protocol, STREAMS},
    server::{self, Server},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::runtime::Builder;

/// Starts the host, makes requests, and stops it.
#[derive(Debug, Parser)]
struct Args {
    /// Which requests.
    part: Part,
    /// The folder of the host.
    programs: PathBuf,
    /// The plugins folder.
    plugins: PathBuf,
}

/// What a run of the host is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Its start and its stop, and a few small requests in between, and nothing for a while.
    Start,
    /// Requests of all kinds, for a plugin with the handlers of `scripts/bench http`.
    Requests,
    /// Lines of the log and of the access log, by `plugins/hello`.
    Lines,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut command = server::host(&args.programs, &args.plugins);
    command.extend(EXPLICIT_DEFAULTS.map(Into::into));
    match args.part {
        // Without the flags for threads, so that a thread is started for each core, as on most machines.
        Part::Start => command
            .retain(|word| !(word.starts_with("--threads=") || word.starts_with("--app-threads="))),
        Part::Requests => {}
        Part::Lines => command.push("--access-log=/dev/null".to_owned()),
    }
    let server = Server::start(&command, None)?;
    server.serves("/quiet")?;
    let train = |case: &Case<'_>, requests| {
        let trained = runtime.block_on(train(server.address(), case, requests));
        trained.map_err(|error| format!("{}: {error}", case.name))
    };
    match args.part {
        Part::Start => {
            train(&HELLO, 2 * HELLO.connections)?;
            thread::sleep(IDLE_TIME);
        }
        Part::Requests => {
            for case in &CASES {
                let is_large = case.upload.max(case.answer) >= 1 << 20;
                train(case, if is_large { 1_000 } else { 40_000 })?;
            }
        }
        Part::Lines => {
            let paths = &["/"];
            train(&Case { paths, ..HELLO }, 10_000)?;
        }
    }
    // The drop waits for the end of the process, which writes the profile.
    drop(server);
    Ok(())
}

/// Sends about `requests` requests of a kind, as many at a time as the case allows.
async fn train(address: SocketAddr, case: &Case<'_>, requests: u32) -> Result<(), Box<dyn Error>> {
    let is_http2 = case.protocol == Protocol::Http2;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(is_http2)
        .build_http();
    let concurrency = case.connections * if is_http2 { STREAMS } else { 1 };
    let body = Bytes::from(case.body().unwrap_or_default());
    let tasks = (0..concurrency).map(|_| async {
        for _ in 0..requests / concurrency {
            let mut request = Request::builder()
                .method(if body.is_empty() { "GET" } else { "POST" })
                .uri(format!("http://{address}{}", case.paths[0]));
            for (name, value) in case.headers {
                request = request.header(*name, *value);
            }
            let response = client
                .request(request.body(Full::new(body.clone()))?)
                .await?;
            let status = response.status();
            let answer = response.into_body().collect().await?.to_bytes();
            if status != StatusCode::OK || answer.len() < case.answer {
                return Err(format!("{status} and {} bytes", answer.len()).into());
            }
        }
        Ok(())
    });
    try_join_all(tasks).await.map(drop)
}

/// The time for which the host is idle. Its periodic timers fire in this time.
const IDLE_TIME: Duration = Duration::from_millis(500);

/// Flags with the default values. They are set so that the profile contains the code that parses each type of setting.
const EXPLICIT_DEFAULTS: [&str; 5] = [
    "--log-level=info",
    "--log-format=text",
    "--max-connections=10000",
    "--max-body-size=64MiB",
    "--keep-alive=75s",
];
