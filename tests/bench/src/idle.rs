//! Connections that are open and idle.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::server::Server;

/// Open connections of a server, each of which has had one answer. They are closed when this is
/// dropped.
#[derive(Debug)]
pub struct Idle {
    holder: Child,
    kib: f64,
}

impl Idle {
    /// Opens so many.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
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

    /// By how many KiB the server grew for each.
    #[must_use]
    pub fn kib(&self) -> f64 {
        self.kib
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
