//! The load generator: runs `wrk` for HTTP/1.1 and `h2load` for HTTP/2, one round at a time.

use std::{error::Error, fmt::Write, fs, net::SocketAddr, path::PathBuf};

use crate::{
    Sample,
    cases::{Case, Protocol, STREAMS},
    server::{Server, pinned},
};

/// Sends requests. The client runs on one core, which the server does not use.
#[derive(Clone, Debug)]
pub struct Client {
    /// The number of the core.
    pub core: u32,
    /// The folder for the files of the load generators.
    pub folder: PathBuf,
    /// The length of a round.
    pub seconds: u32,
}

impl Client {
    /// Sends requests for one round, and returns their rate, latencies and cost.
    ///
    /// # Errors
    ///
    /// Returns an error when the load generator cannot run, or when a request fails.
    pub fn measure(&self, case: &Case<'_>, server: &Server) -> Result<Sample, Box<dyn Error>> {
        let before = server.cpu()?;
        let load = match case.protocol {
            Protocol::Http1 => self.wrk(case, server.address()),
            Protocol::Http2 => self.h2load(case, server.address()),
        };
        let load = load.map_err(|error| format!("{}: {error}", case.name))?;
        let cpu = server.cpu()?.saturating_sub(before);
        Ok(Sample {
            rate: load.requests / load.seconds,
            cpu: cpu.as_secs_f64() * 1e6 / load.requests,
            median: load.median,
            p99: load.p99,
        })
    }

    fn wrk(&self, case: &Case<'_>, address: SocketAddr) -> Result<Load, Box<dyn Error>> {
        let file = self.folder.join("requests.lua");
        fs::write(&file, wrk_script(case)?)?;
        let mut command = pinned(Some(self.core), "wrk");
        command
            .args(["--threads=1", "--timeout=10s"])
            .arg(format!("--connections={}", case.connections))
            .arg(format!("--duration={}s", self.seconds))
            .arg(format!("--script={}", file.display()));
        for (name, value) in case.headers {
            command.arg(format!("--header={name}: {value}"));
        }
        let printed = command
            .arg(format!("http://{address}{}", case.paths[0]))
            .output()?;
        let printed = String::from_utf8(printed.stdout)? + &String::from_utf8(printed.stderr)?;
        let measured = printed
            .lines()
            .find_map(|line| line.strip_prefix("measured "));
        let numbers: Vec<f64> = measured
            .unwrap_or_default()
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("wrk says: {printed}"))?;
        let &[requests, us, bytes, failed, median, p99] = &numbers[..] else {
            return Err(format!("wrk says: {printed}").into());
        };
        if failed > 0.0 || requests == 0.0 {
            return Err(format!("{requests} requests, {failed} failed: {printed}").into());
        }
        if bytes < requests * case.answer as f64 {
            return Err(format!("{bytes} bytes for {requests} requests are not enough").into());
        }
        let seconds = us / 1e6;
        Ok(Load {
            requests,
            seconds,
            median,
            p99,
        })
    }

    fn h2load(&self, case: &Case<'_>, address: SocketAddr) -> Result<Load, Box<dyn Error>> {
        let log = self.folder.join("requests.log");
        // Empties the file, because h2load appends to it.
        fs::write(&log, "")?;
        let mut command = pinned(Some(self.core), "h2load");
        for (name, value) in case.headers {
            command.arg(format!("--header={name}: {value}"));
        }
        let printed = command
            .arg(format!("--clients={}", case.connections))
            .arg(format!("--max-concurrent-streams={STREAMS}"))
            .arg(format!("--duration={}", self.seconds))
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("http://{address}{}", case.paths[0]))
            .output()?;
        let printed = String::from_utf8(printed.stdout)? + &String::from_utf8(printed.stderr)?;
        if !printed.contains(" 0 failed, 0 errored, 0 timeout") {
            return Err(format!("h2load says: {printed}").into());
        }
        // A line of h2load's log is the time of the start, the status, and the duration in microseconds.
        let text = fs::read_to_string(log)?;
        let mut times = Vec::new();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                [_, "200", time] => times.push(time.parse::<f64>()?),
                _ => return Err(format!("a request failed: {line}").into()),
            }
        }
        times.sort_by(f64::total_cmp);
        let percentile = |part: usize| times.get(times.len() * part / 100).copied();
        let (Some(median), Some(p99)) = (percentile(50), percentile(99)) else {
            return Err(format!("h2load says: {printed}").into());
        };
        Ok(Load {
            requests: times.len() as f64,
            seconds: f64::from(self.seconds),
            median,
            p99,
        })
    }
}

/// The result of a round as the client saw it. `median` and `p99` are latencies in microseconds.
struct Load {
    requests: f64,
    seconds: f64,
    median: f64,
    p99: f64,
}

/// Returns the Lua script that configures `wrk`.
fn wrk_script(case: &Case<'_>) -> Result<String, Box<dyn Error>> {
    let mut script = String::from(include_str!("requests.lua"));
    if let Some(body) = case.body() {
        writeln!(script, "wrk.method = 'POST'\nwrk.body = '{body}'")?;
    }
    // With one path, wrk sends the same bytes each time. Calling a Lua function for each request would slow wrk down.
    if case.paths.len() > 1 {
        writeln!(script, "in_turn({{")?;
        for path in case.paths {
            writeln!(script, "'{path}',")?;
        }
        writeln!(script, "}})")?;
    }
    Ok(script)
}
