//! The server of a session: a process of its own, which is the ordinary host with a layer for
//! development.

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

/// A server that was started.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Where it listens, in the order of `--bind`.
    listening: mpsc::UnboundedReceiver<String>,
    started: Instant,
}

/// What a server does.
#[derive(Debug)]
pub(super) enum Event {
    /// It listens at this origin.
    Listening(String),
    /// It ended by itself.
    Ended(io::Result<ExitStatus>),
}

impl Server {
    /// Starts the program that runs, with these arguments.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(super) fn start(arguments: &[OsString], feed: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments.iter().skip(1))
            .env(SOCKET, feed)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C in the terminal is for the session, which stops its server.
            .process_group(0)
            .kill_on_drop(true);
        if env::var_os("RUST_BACKTRACE").is_none() {
            command.env("RUST_BACKTRACE", "1");
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, listening) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                println!("{line}");
                if let Some(address) = line.strip_prefix("Listening on ") {
                    // Nobody needs to know it twice.
                    let _ = sender.send(address.to_owned());
                }
            }
        });
        Ok(Self {
            child,
            listening,
            started: Instant::now(),
        })
    }

    /// Waits for what it does next. Cancelling the future loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            Some(address) = self.listening.recv() => Event::Listening(address),
            status = self.child.wait() => Event::Ended(status),
        }
    }

    /// How long it has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Has it read its configuration file again.
    pub(super) fn configure(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it: what it has begun has a moment to end.
    pub(super) async fn stop(mut self) {
        for patience in [GRACE, HASTE] {
            self.signal(Signal::TERM);
            if time::timeout(patience, self.child.wait()).await.is_ok() {
                return;
            }
        }
        // It may have ended just now.
        let _ = self.child.kill().await;
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // It may have ended just now.
            let _ = kill_process(id, signal);
        }
    }
}

/// The variable that names the socket with the state of the session.
pub const SOCKET: &str = "HOST_DEV_SOCKET";

/// The variable that names the process which a server of a session belongs to.
pub const PARENT: &str = "HOST_DEV_PARENT";

/// How long requests may go on when the session ends.
const GRACE: Duration = Duration::from_millis(300);

/// How long a server may take that was told twice to stop.
const HASTE: Duration = Duration::from_secs(1);
