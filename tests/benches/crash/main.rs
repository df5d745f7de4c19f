//! `scripts/bench crash`: measures how crashes, recycles, upgrades and thousands of reloads affect the requests of a
//! running host. Each part prints a table. The exit code is 1 when a request was lost without a reason.

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
    let is_selected = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut all_good = true;
    if is_selected(Part::Crashes) {
        all_good &= crashes::run(1, options.crashes).await;
        all_good &= crashes::run(2, options.crashes).await;
        all_good &= crashes::put_aside().await;
    }
    if is_selected(Part::Recycles) {
        all_good &= fresh::recycles(options.recycles).await;
    }
    if is_selected(Part::Upgrades) {
        all_good &= fresh::upgrades(options.upgrades).await;
    }
    if is_selected(Part::Replacements) {
        all_good &= replacements::run(options.replacements).await;
    }
    if is_selected(Part::Reloads) {
        all_good &= reloads::run(options.reloads).await;
    }
    ExitCode::from(u8::from(!all_good))
}
