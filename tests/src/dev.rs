//! A session of `host dev`.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Connection, Lines, Reply, eventually, eventually_for, host_command, time_limit};

/// A session. Dropping the value kills the session and its server. During a panic, their output is
/// printed.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines,
    stderr: Lines,
    address: SocketAddr,
}

impl Dev {
    /// Starts a session in a folder, on a free port. Returns when the session has printed its address.
    ///
    /// # Panics
    ///
    /// Panics if the session does not start.
    pub async fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Self::command(folder, args);
        command
            .arg("--bind=127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo built the host");
        let stdout = Lines::of(child.stdout.take().expect("the stream is piped"));
        let stderr = Lines::of(child.stderr.take().expect("the stream is piped"));
        let mut session = Self {
            stdin: child.stdin.take().expect("the stream is piped"),
            child,
            stdout,
            stderr,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = session.stdout.eventually(&["Listening on http://"]).await;
        let address = line.trim_start_matches("Listening on http://").parse();
        session.address = address.expect("the line contains an address");
        session
    }

    /// Returns the command that starts a session in a folder.
    #[must_use]
    pub fn command(folder: &Path, args: &[&str]) -> Command {
        let mut command = host_command();
        command.arg("dev").args(args).current_dir(folder);
        command
    }

    /// Returns the address that the server listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the stdout of the session.
    #[must_use]
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Returns the stderr of the session: the server's log and the compiler's output.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.stderr
    }

    /// Types a line into the terminal of the session.
    ///
    /// # Panics
    ///
    /// Panics if the session does not read its stdin.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the session reads");
    }

    /// Sends `GET path` on a new connection, and returns the response.
    pub async fn get(&self, path: &str) -> Reply {
        Connection::http1(self.address).await.get(path).await
    }

    /// Waits until `GET path` is answered with 200 and a text that contains `part`.
    pub async fn serves(&self, path: &str, part: &str) {
        let what = format!("{path} answers {part:?}");
        // A longer time limit, because Cargo may have to build all dependencies first, while other tests build too.
        eventually_for(time_limit() * 5, &what, async || {
            let reply = self.get(path).await;
            (reply.status == 200 && reply.text().contains(part)).then_some(())
        })
        .await;
    }

    /// Sends the session a signal.
    ///
    /// # Panics
    ///
    /// Panics if the process has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the session runs");
    }

    /// Waits for the end of the session and of its server, and returns how the session ended.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot wait for the process.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = eventually("the end of the session", async || {
            let status = self.child.try_wait();
            status.expect("the session is a child of this process")
        })
        .await;
        // The server inherits these streams, so they end when both processes have ended.
        self.stdout.closed().await;
        self.stderr.closed().await;
        status
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The kill fails if the process has already ended.
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
