//! Idle connections, which another process (src/bin/idle.rs) holds open.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::server::Server;

/// Open connections to a server, each of which has had one response. The drop closes the connections.
#[derive(Debug)]
pub struct Idle {
    /// The process that holds the connections.
    holder: Child,
    /// See [`Idle::kib`].
    kib: f64,
}

impl Idle {
    /// Opens `count` connections. `programs` is the folder of the program `idle`.
    ///
    /// # Errors
    ///
    /// Returns an error when the server does not answer on each connection.
    pub fn open(programs: &Path, server: &Server, count: u32) -> Result<Self, Box<dyn Error>> {
        let before = server.memory()?.resident;
        let mut holder = Command::new(programs.join("idle"))
            .args([server.address().to_string(), count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = holder.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut idle = Self { holder, kib: 0.0 };
        if line.trim() != "open" {
            return Err(format!("{count} connections are too many").into());
        }
        idle.kib = (server.memory()?.resident - before) / f64::from(count);
        Ok(idle)
    }

    /// Returns the growth of the server's resident memory for each connection, in KiB.
    #[must_use]
    pub fn kib(&self) -> f64 {
        self.kib
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // Ignore errors, because the process may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
