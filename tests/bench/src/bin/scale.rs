//! `scripts/bench scale`: measures the cost of more mounts, apps and connections, the memory of the host, and the time
//! from its start to its first response.

#![forbid(unsafe_code)]

use std::{error::Error, path::PathBuf, time::Instant};

use clap::{Parser, ValueEnum, value_parser};
use host_bench::{
    Comparison, Rounds,
    apps::Apps,
    cases::{Case, HELLO},
    client::Client,
    idle::Idle,
    quartiles,
    server::{self, Server},
};

/// Measures how the costs of the host grow.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the twin, and of the program `idle`.
    programs: PathBuf,
    /// The folder of the released host.
    released: PathBuf,
    /// The plugins folder with `hello`, which is native.
    native: PathBuf,
    /// How many rounds, in which each server has a turn.
    #[arg(long, default_value = "9", value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these parts.
    #[arg(long = "part", value_name = "NAME")]
    parts: Vec<Part>,
    /// The core of the servers.
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    server_core: u32,
    /// The core of the client.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    client_core: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Routes,
    Connections,
    Memory,
    Start,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let client = Client {
        core: args.client_core,
        folder: folder.path().to_owned(),
        seconds: 1,
    };
    let bench = Bench { args, client };
    for part in Part::value_variants() {
        if bench.args.parts.is_empty() || bench.args.parts.contains(part) {
            match part {
                Part::Routes => bench.routes()?,
                Part::Connections => bench.connections()?,
                Part::Memory => bench.memory()?,
                Part::Start => bench.start()?,
            }
        }
    }
    Ok(())
}

struct Bench {
    args: Args,
    client: Client,
}

impl Bench {
    /// Compares a host that has many mounts with a host that has one mount.
    fn routes(&self) -> Result<(), Box<dyn Error>> {
        let rounds = self.args.rounds;
        println!("### Mounts\n\nMedians of {rounds} rounds of 1 s; beside a host with one app.\n");
        println!(
            "| apps, mounts | asked for | {} |\n|---|---|---|---|---|---|---|---|",
            Comparison::COLUMNS
        );
        let (one, one_path) = self.apps(1, 1)?.start(self.core())?;
        let one_path = one_path.first().ok_or("the app is not mounted")?.as_str();
        for (apps, mounts) in [(10, 1), (100, 1), (1, 1000), (100, 10), (1000, 1)] {
            let (many, paths) = self.apps(apps, mounts)?.start(self.core())?;
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            let last = paths.last().ok_or("no app is mounted")?;
            // The numbers of apps and mounts that serve, because a process cannot load any number of libraries.
            let title = format!("{}, {}", paths.len() as u32 / mounts, paths.len());
            for (requested, ours, theirs) in [
                ("the last", vec![*last], vec![one_path]),
                ("all in turn", paths.clone(), vec![one_path; paths.len()]),
            ] {
                let case = |paths| Case { paths, ..HELLO };
                let (ours, theirs) = (case(&ours), case(&theirs));
                let cells = self.compare((&many, &ours), (&one, &theirs))?;
                println!("| {title} | {requested} | {cells} |");
            }
        }
        println!();
        Ok(())
    }

    /// Compares the host with the bare server, while both have many idle connections.
    fn connections(&self) -> Result<(), Box<dyn Error>> {
        let rounds = self.args.rounds;
        println!("### Open connections\n\nMedians of {rounds} rounds of 1 s; beside bare hyper.\n");
        println!(
            "| idle connections | {} | KiB a connection |\n|---|---|---|---|---|---|---|---|",
            Comparison::COLUMNS
        );
        for count in [1, 100, 10_000] {
            let (host, bare) = (self.native()?, self.bare()?);
            let idle = |server| Idle::open(&self.args.programs, server, count);
            let (ours, theirs) = (idle(&host)?, idle(&bare)?);
            let cells = self.compare((&host, &HELLO), (&bare, &HELLO))?;
            let memory = format!("{:.1} · {:.1}", ours.kib(), theirs.kib());
            println!("| {count} | {cells} | {memory} |");
        }
        println!();
        Ok(())
    }

    /// Measures the memory of the idle host, of each additional app, and of supervisor and worker.
    fn memory(&self) -> Result<(), Box<dyn Error>> {
        let (mut resident, mut anonymous) = (Rounds::default(), Rounds::default());
        for _ in 0..STARTS {
            let (host, bare) = (self.native()?, self.bare()?);
            let (ours, theirs) = (host.memory()?, bare.memory()?);
            resident.add(ours.resident, theirs.resident);
            anonymous.add(ours.anonymous, theirs.anonymous);
        }
        // The proportional set size, because supervisor and worker share the pages of the program.
        let (mut supervisor, mut both) = (Rounds::default(), Rounds::default());
        for _ in 0..STARTS {
            let (host, bare) = (self.with_worker()?, self.bare()?);
            let theirs = bare.memory()?.proportional;
            let ours = host.memory()?.proportional;
            let workers = host.memory_of_children()?;
            let workers: f64 = workers.iter().map(|worker| worker.proportional).sum();
            supervisor.add(ours, theirs);
            both.add(ours + workers, theirs);
        }
        println!("### Memory\n\nMedians of {STARTS} starts, after one request.\n");
        println!("| KiB | resident | anonymous |\n|---|---|---|");
        let (our_resident, their_resident) = resident.medians();
        let (our_anonymous, their_anonymous) = anonymous.medians();
        println!("| host with one plugin | {our_resident:.0} | {our_anonymous:.0} |");
        println!("| bare hyper | {their_resident:.0} | {their_anonymous:.0} |");
        let (resident, anonymous) = (resident.ratio(), anonymous.ratio());
        println!("| ratio (quartiles) | {resident} | {anonymous} |");
        let memory = |apps| -> Result<_, Box<dyn Error>> {
            let (server, paths) = self.apps(apps, 1)?.start(self.core())?;
            if paths.len() < apps as usize {
                return Err(format!("{} of {apps} apps are mounted", paths.len()).into());
            }
            server.memory()
        };
        let (one, many) = (memory(1)?, memory(MORE_PLUGINS + 1)?);
        let per_plugin = |many: f64, one: f64| (many - one) / f64::from(MORE_PLUGINS);
        let resident = per_plugin(many.resident, one.resident);
        let anonymous = per_plugin(many.anonymous, one.anonymous);
        println!("| each of {MORE_PLUGINS} more plugins | {resident:.0} | {anonymous:.0} |\n");
        println!("Proportional set size, with a worker process.\n");
        println!("| KiB | | of bare hyper's (quartiles) |\n|---|---|---|");
        for (name, rounds) in [
            ("supervisor", &supervisor),
            ("supervisor and worker", &both),
        ] {
            let ((ours, _), ratio) = (rounds.medians(), rounds.ratio());
            println!("| {name} | {ours:.0} | {ratio} |");
        }
        println!("| bare hyper | {:.0} | |\n", both.medians().1);
        Ok(())
    }

    /// Measures the time from the start of the process to the first response.
    fn start(&self) -> Result<(), Box<dyn Error>> {
        let bare = server::twin(&self.args.programs, "bare");
        let (one, many_apps) = (self.apps(1, 1)?, self.apps(50, 1)?);
        let worker = server::host_with_worker(&self.args.released, &self.args.native);
        let starts = [
            ("bare hyper", &bare, "/quiet"),
            (
                "host with one plugin in a worker process",
                &worker,
                "/quiet",
            ),
            ("host with one plugin", &one.command, &one.paths[0]),
            (
                "host with 50 plugins",
                &many_apps.command,
                &many_apps.paths[49],
            ),
        ];
        let mut times = starts.map(|_| Vec::new());
        for _ in 0..STARTS {
            for ((_, command, path), times) in starts.iter().zip(&mut times) {
                let began = Instant::now();
                // The time is taken before the drop, because the stop of the server does not count.
                let server = Server::start(command, None)?;
                server.serves(path)?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
                drop(server);
            }
        }
        println!("### Start\n\nMedians of {STARTS} starts, in turn, on all cores.\n");
        println!("| from start to the first answer | ms (quartiles) |\n|---|---|");
        for ((name, ..), times) in starts.iter().zip(&times) {
            let [low, median, high] = quartiles(times);
            println!("| {name} | **{median:.1}** ({low:.1}–{high:.1}) |");
        }
        println!();
        Ok(())
    }

    /// Measures two servers in turn, and returns the cells of a table's row.
    fn compare(
        &self,
        (ours, our_case): (&Server, &Case<'_>),
        (theirs, their_case): (&Server, &Case<'_>),
    ) -> Result<String, Box<dyn Error>> {
        let mut comparison = Comparison::default();
        // The first round does not count, because it fills caches and pools. The order of the two servers changes with
        // each round, so that neither server always has the first turn.
        for round in 0..=self.args.rounds {
            let sample = || self.client.measure(our_case, ours);
            let (first, theirs) = if round % 2 == 0 {
                (Some(sample()?), self.client.measure(their_case, theirs)?)
            } else {
                (None, self.client.measure(their_case, theirs)?)
            };
            let ours = first.map_or_else(sample, Ok)?;
            if round > 0 {
                comparison.add(ours, theirs);
            }
        }
        Ok(comparison.cells())
    }

    /// Starts a host in one process with one plugin, and waits until the plugin serves.
    fn native(&self) -> Result<Server, Box<dyn Error>> {
        let mut command = server::host(&self.args.released, &self.args.native);
        command.extend(IDLE_FLAGS.map(Into::into));
        let server = Server::start(&command, self.core())?;
        server.serves("/quiet")?;
        Ok(server)
    }

    /// Starts a host with a worker process and one plugin, and waits until the plugin serves.
    fn with_worker(&self) -> Result<Server, Box<dyn Error>> {
        let command = server::host_with_worker(&self.args.released, &self.args.native);
        let server = Server::start(&command, self.core())?;
        server.serves("/quiet")?;
        Ok(server)
    }

    /// Starts the twin with hyper alone, and waits until it serves.
    fn bare(&self) -> Result<Server, Box<dyn Error>> {
        let command = server::twin(&self.args.programs, "bare");
        let server = Server::start(&command, self.core())?;
        server.serves("/quiet")?;
        Ok(server)
    }

    /// Configures a host in which the plugin is `apps` apps, with `mounts` mounts each.
    fn apps(&self, apps: u32, mounts: u32) -> Result<Apps, Box<dyn Error>> {
        let Args {
            released, native, ..
        } = &self.args;
        Apps::new((released, native, &self.client.folder), apps, mounts)
    }

    fn core(&self) -> Option<u32> {
        Some(self.args.server_core)
    }
}

/// The number of additional plugins from which the memory of one plugin is computed.
const MORE_PLUGINS: u32 = 100;

/// The number of times that each server is started.
const STARTS: u32 = 15;

/// Allows for many idle connections, and keeps the host from closing them during the measurement.
const IDLE_FLAGS: [&str; 2] = ["--max-connections=20000", "--keep-alive=1h"];
