//! What crashes, recycles, upgrades and thousands of reloads do to the requests of a running host. `scripts/bench
//! crash` runs it. Each part prints a table, and the exit code is 1 when a request was lost that should not have been.

mod clients;
mod crashes;
mod fresh;
mod reloads;
mod replacements;
mod report;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Loads a host, and ends its processes meanwhile
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Which part to run; several times for several parts
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// How often a handler of an app writes to a null pointer
    #[arg(long, default_value = "1000")]
    crashes: usize,
    /// How often a library is replaced in one worker
    #[arg(long, default_value = "3000")]
    reloads: usize,
    /// How often the worker is recycled
    #[arg(long, default_value = "200")]
    recycles: usize,
    /// How often another build of the host takes over
    #[arg(long, default_value = "20")]
    upgrades: usize,
    /// How often a library is replaced in four workers
    #[arg(long, default_value = "200")]
    replacements: usize,
    /// The option that cargo passes to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Crashes,
    Recycles,
    Reloads,
    Replacements,
    Upgrades,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let has = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut is_good = true;
    if has(Part::Crashes) {
        is_good &= crashes::run(1, options.crashes).await;
        is_good &= crashes::run(2, options.crashes).await;
        is_good &= crashes::put_aside().await;
    }
    if has(Part::Recycles) {
        is_good &= fresh::recycles(options.recycles).await;
    }
    if has(Part::Upgrades) {
        is_good &= fresh::upgrades(options.upgrades).await;
    }
    if has(Part::Replacements) {
        is_good &= replacements::run(options.replacements).await;
    }
    if has(Part::Reloads) {
        is_good &= reloads::run(options.reloads).await;
    }
    ExitCode::from(u8::from(!is_good))
}
