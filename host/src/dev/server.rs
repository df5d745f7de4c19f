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
    /// The origins that the server prints when it listens, in the order of `--bind`.
    origins: mpsc::UnboundedReceiver<String>,
    started: Instant,
}

/// An event of a server process.
#[derive(Debug)]
pub(super) enum ServerEvent {
    /// The server listens at this origin, for instance `http://127.0.0.1:8000`.
    Listening(String),
    /// The process has ended, although the session did not stop it.
    Ended(io::Result<ExitStatus>),
}

impl DevServer {
    /// Starts this program as a server with these arguments, of which the first is the program's name.
    /// `feed` is the path of the socket on which the session sends its state to the server.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be started.
    pub(super) fn start(arguments: &[OsString], feed: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments.iter().skip(1))
            .env(SOCKET, feed)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // The terminal sends Ctrl-C to the session's process group only. The session then stops the server.
            .process_group(0)
            .kill_on_drop(true);
        // The page about a panic shows a backtrace, which std only records if the variable is set.
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
                    // Ignore a failure: the receiver is gone when the server is being stopped.
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

    /// Waits for the next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> ServerEvent {
        tokio::select! {
            Some(origin) = self.origins.recv() => ServerEvent::Listening(origin),
            status = self.child.wait() => ServerEvent::Ended(status),
        }
    }

    /// Returns the time since the start of the process.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Makes the server read its configuration file again.
    pub(super) fn reload_settings(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops the server. The first signal lets requests in flight finish within [`DRAIN_TIMEOUT`], the
    /// second makes the server end at once, and after [`STOP_TIMEOUT`] the process is killed.
    pub(super) async fn stop(mut self) {
        for timeout in [DRAIN_TIMEOUT, STOP_TIMEOUT] {
            self.signal(Signal::TERM);
            if time::timeout(timeout, self.child.wait()).await.is_ok() {
                return;
            }
        }
        // Ignore a failure: the process may have ended a moment ago.
        let _ = self.child.kill().await;
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // Ignore a failure: the process may have ended a moment ago.
            let _ = kill_process(id, signal);
        }
    }
}

/// The environment variable with the path of the socket that sends the state of the session.
pub const SOCKET: &str = "HOST_DEV_SOCKET";

/// The environment variable with the process id of the session that a server belongs to.
pub const PARENT: &str = "HOST_DEV_PARENT";

/// The time that requests in flight have when the session ends.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// The time that the server has to end after the second signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
