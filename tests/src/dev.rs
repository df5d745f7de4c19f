//! A session of `host dev`.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Connection, Lines, Reply, eventually, eventually_for, host_command, patience};

/// A session. When it is dropped it is killed, and its server with it; when a panic is the reason,
/// what they printed is shown.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines,
    stderr: Lines,
    address: SocketAddr,
}

impl Dev {
    /// Starts a session in a folder, on a free port. The port answers when this returns.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Self::command(folder, args);
        command
            .arg("--bind=127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo built the host");
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        let mut session = Self {
            stdin: child.stdin.take().expect("it is piped"),
            child,
            stdout,
            stderr,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = session.stdout.eventually(&["Listening on http://"]).await;
        let address = line.trim_start_matches("Listening on http://").parse();
        session.address = address.expect("the address is told");
        session
    }

    /// How a session is started in a folder.
    #[must_use]
    pub fn command(folder: &Path, args: &[&str]) -> Command {
        let mut command = host_command();
        command.arg("dev").args(args).current_dir(folder);
        command
    }

    /// Where its server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the session says.
    #[must_use]
    pub fn said(&self) -> &Lines {
        &self.stdout
    }

    /// The server's log, and what the compiler says.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.stderr
    }

    /// Types a line.
    ///
    /// # Panics
    ///
    /// When nobody reads it.
    pub fn types(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the session reads");
    }

    /// The response to `GET path`, on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        Connection::http1(self.address).await.get(path).await
    }

    /// Returns when `GET path` is answered with 200 and a text with this in it. Cargo may have to build all
    /// dependencies before, and another test may build at the same time.
    pub async fn serves(&self, path: &str, part: &str) {
        let what = format!("{path} answers {part:?}");
        eventually_for(patience() * 5, &what, async || {
            let reply = self.get(path).await;
            (reply.status == 200 && reply.text().contains(part)).then_some(())
        })
        .await;
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the session runs");
    }

    /// How it ends, once it does. Its server has ended then.
    ///
    /// # Panics
    ///
    /// When the system does not tell.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = eventually("the end of the session", async || {
            self.child.try_wait().expect("it is a child")
        })
        .await;
        // The server has these too.
        self.stdout.closed().await;
        self.stderr.closed().await;
        status
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- the session said ---\n{}{}---",
                self.stdout, self.stderr
            );
        }
    }
}
