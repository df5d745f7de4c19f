//! `scripts/bench http`: measures the cost of the ABI boundary under load. Compares a plugin in the host with its twin,
//! which has the same handlers compiled in, in alternating rounds. The host is measured twice: as it is released, and
//! as `cargo build --release` builds it ("plain"), which is how the twin is built.

#![forbid(unsafe_code)]

use std::{error::Error, path::PathBuf, process::Command};

use clap::{Parser, builder::PossibleValuesParser, value_parser};
use host_bench::{
    Comparison, Sample,
    cases::{CASES, Case, Protocol},
    client::Client,
    server::{self, Server},
};

/// Compares plugins in the host with the same handlers compiled in.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the twins, and of the host as cargo builds it.
    programs: PathBuf,
    /// The folder of the host as it is released.
    released: PathBuf,
    /// The plugins folder with the native plugin.
    native: PathBuf,
    /// The plugins folder with the axum plugin.
    axum: PathBuf,
    /// How many rounds, in which each server has a turn.
    #[arg(long, default_value = "15", value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many seconds a server's turn lasts.
    #[arg(long, default_value = "1", value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only these cases.
    #[arg(long = "case", value_name = "NAME", value_parser = PossibleValuesParser::new(CASES.map(|case| case.name)))]
    cases: Vec<String>,
    /// The core of the servers.
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    server_core: u32,
    /// The core of the client.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    client_core: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let client = Client {
        core: args.client_core,
        folder: folder.path().to_owned(),
        seconds: args.seconds,
    };
    let (rounds, seconds) = (args.rounds, args.seconds);
    println!("Medians of {rounds} rounds of {seconds} s; ours · theirs.\n");
    println!(
        "| case | ours beside theirs | {} |\n|---|---|---|---|---|---|---|---|",
        Comparison::COLUMNS
    );
    for case in &CASES {
        if args.cases.is_empty() || args.cases.iter().any(|name| name == case.name) {
            compare(&args, &client, case)?;
        }
    }
    Ok(())
}

/// Measures all servers with one case, and prints the rows of the table.
fn compare(args: &Args, client: &Client, case: &Case<'_>) -> Result<(), Box<dyn Error>> {
    let core = Some(args.server_core);
    let is_http2 = case.protocol == Protocol::Http2;
    let mut bare = server::twin(&args.programs, "bare");
    if is_http2 {
        bare.push("http2".to_owned());
    }
    let host = |programs, plugins| -> Result<_, Box<dyn Error>> {
        let server = Server::start(&server::host(programs, plugins), core)?;
        server.serves("/quiet")?;
        Ok(server)
    };
    let mut servers = vec![
        Server::start(&bare, core)?,
        host(&args.released, &args.native)?,
        host(&args.programs, &args.native)?,
        Server::start(&server::twin(&args.programs, "axum"), core)?,
        host(&args.released, &args.axum)?,
        host(&args.programs, &args.axum)?,
    ];
    if case.on_nginx && Command::new("nginx").arg("-v").output().is_ok() {
        servers.push(Server::nginx(&client.folder, is_http2, args.server_core)?);
    }

    // The title of a row, and the indices in `servers` of the two servers that it compares.
    let mut pairs = vec![
        ("native plugin beside bare hyper", 1, 0),
        ("native plugin beside bare hyper, both plain", 2, 0),
        ("axum plugin beside axum::serve", 4, 3),
        ("axum plugin beside axum::serve, both plain", 5, 3),
        ("nginx beside bare hyper", 6, 0),
    ];
    pairs.retain(|(_, ours, _)| *ours < servers.len());
    let mut comparisons: Vec<Comparison> = pairs.iter().map(|_| Comparison::default()).collect();
    // The first round does not count, because it fills caches and pools.
    for round in 0..=args.rounds {
        let samples = take_turns(client, case, &servers, round % 2 == 0)?;
        if round > 0 {
            for ((_, ours, theirs), comparison) in pairs.iter().zip(&mut comparisons) {
                comparison.add(samples[*ours], samples[*theirs]);
            }
        }
    }
    for ((name, ..), comparison) in pairs.iter().zip(&comparisons) {
        println!("| {} | {name} | {} |", case.title, comparison.cells());
    }
    Ok(())
}

/// Measures each server once, in the given or in the reverse order. Returns the samples in the given order.
fn take_turns(
    client: &Client,
    case: &Case<'_>,
    servers: &[Server],
    is_forward: bool,
) -> Result<Vec<Sample>, Box<dyn Error>> {
    if is_forward {
        let turns = servers.iter().map(|server| client.measure(case, server));
        return turns.collect();
    }
    let turns = servers.iter().rev();
    let turns = turns.map(|server| client.measure(case, server));
    let mut samples: Vec<_> = turns.collect::<Result<_, _>>()?;
    samples.reverse();
    Ok(samples)
}
