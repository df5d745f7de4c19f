//! The server process of a session: the ordinary host with a layer for development.

use std::{
    env,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time,
};

/// A running server process. Dropping the value kills the process.
#[derive(Debug)]
pub(super) struct DevServer {
    child: Child,
    /// The origins that the server prints when it listens, in the order of `--bind`. An origin is a scheme, a host and
    /// a port, for instance `http://127.0.0.1:8000`.
    origins: mpsc::UnboundedReceiver<String>,
    started: Instant,
}

/// An event of a server process.
#[derive(Debug)]
pub(super) enum ServerEvent {
    /// The server listens at this origin.
    Listening(String),
    /// The process has ended, although the session did not stop it.
    Ended(io::Result<ExitStatus>),
}

impl DevServer {
    /// Starts this program as a server with these arguments, of which the first is the program's name. `state_socket`
    /// is the path of the socket on which the session sends its state to the server.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be started.
    pub(super) fn start(arguments: &[OsString], state_socket: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments.iter().skip(1))
            .env(SOCKET_VARIABLE, state_socket)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            // Read stdout for the addresses. The log goes to stderr, which the server shares with the session.
            .stdout(Stdio::piped())
            // With a process group of its own, the server does not get the terminal's Ctrl-C: the session stops the
            // server.
            .process_group(0)
            .kill_on_drop(true);
        // The error page for a panic shows a backtrace, and std records a backtrace only if this variable is set.
        if env::var_os("RUST_BACKTRACE").is_none() {
            command.env("RUST_BACKTRACE", "1");
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, origins) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                println!("{line}");
                if let Some(origin) = line.strip_prefix("Listening on ") {
                    // Ignore a failure: the receiver is dropped while the server is being stopped.
                    let _ = sender.send(origin.to_owned());
                }
            }
        });
        Ok(Self {
            child,
            origins,
            started: Instant::now(),
        })
    }

    /// Waits for the next event. Cancel-safe: dropping the future loses no event.
    pub(super) async fn next(&mut self) -> ServerEvent {
        tokio::select! {
            Some(origin) = self.origins.recv() => ServerEvent::Listening(origin),
            status = self.child.wait() => ServerEvent::Ended(status),
        }
    }

    /// Returns the time since the start of the process.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Makes the server read its configuration file again.
    pub(super) fn reload_settings(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops the server. After the first SIGTERM, requests in flight have [`DRAIN_TIMEOUT`] to end. A second SIGTERM
    /// makes the server end at once. If the process still runs after [`STOP_TIMEOUT`], it is killed.
    pub(super) async fn stop(mut self) {
        for timeout in [DRAIN_TIMEOUT, STOP_TIMEOUT] {
            self.signal(Signal::TERM);
            if time::timeout(timeout, self.child.wait()).await.is_ok() {
                return;
            }
        }
        // Ignore a failure: the process may just have ended.
        let _ = self.child.kill().await;
    }

    /// Sends a signal to the server, unless the process has ended and was waited for.
    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // Ignore a failure: the process may just have ended.
            let _ = kill_process(id, signal);
        }
    }
}

/// The environment variable with the path of the Unix socket on which the session sends its state to the server.
pub const SOCKET_VARIABLE: &str = "HOST_DEV_SOCKET";

/// The environment variable with the process id of the session that has started the server.
pub const PARENT_VARIABLE: &str = "HOST_DEV_PARENT";

/// The time that requests in flight have to end after the first SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// The time that the server has to end after the second SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
