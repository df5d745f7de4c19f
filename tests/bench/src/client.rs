//! The load: `wrk` for HTTP/1.1 and `h2load` for HTTP/2, a round at a time.

use std::{error::Error, fmt::Write, fs, net::SocketAddr, path::PathBuf};

use crate::{
    Sample,
    cases::{Case, Protocol, STREAMS},
    server::{Server, pinned},
};

/// Makes requests, from a core of its own.
#[derive(Clone, Debug)]
pub struct Client {
    /// The core.
    pub core: u32,
    /// Where it keeps files.
    pub folder: PathBuf,
    /// How long a round is.
    pub seconds: u32,
}

impl Client {
    /// Makes a round of requests, and says what they took and cost.
    ///
    /// # Errors
    ///
    /// When the load cannot be made, or a request fails.
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
        fs::write(&file, script(case)?)?;
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
        // It appends.
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
        // When it began, its status, and how many microseconds it took.
        let text = fs::read_to_string(log)?;
        let mut times = Vec::new();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                [_, "200", time] => times.push(time.parse::<f64>()?),
                _ => return Err(format!("a request failed: {line}").into()),
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get(times.len() * part / 100).copied();
        let (Some(median), Some(p99)) = (at(50), at(99)) else {
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

/// A round as the client saw it, its times in microseconds.
struct Load {
    requests: f64,
    seconds: f64,
    median: f64,
    p99: f64,
}

/// What `wrk` is told in Lua.
fn script(case: &Case<'_>) -> Result<String, Box<dyn Error>> {
    let mut script = String::from(include_str!("requests.lua"));
    if let Some(body) = case.body() {
        writeln!(script, "wrk.method = 'POST'\nwrk.body = '{body}'")?;
    }
    // Without a function, the same bytes are sent again and again.
    if case.paths.len() > 1 {
        writeln!(script, "in_turn({{")?;
        for path in case.paths {
            writeln!(script, "'{path}',")?;
        }
        writeln!(script, "}})")?;
    }
    Ok(script)
}
