//! The settings of a host, the start of the host, and the result when it has ended.

use std::{
    env,
    ffi::OsStr,
    fmt, io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Once,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task;

use crate::{Folder, Host, Library, Line, Lines, artifacts, within};

/// The settings of a host that is not started yet. By default, the host gets a free port and a new plugins folder. It
/// inherits no environment variables of the test that begin with `HOST_` or `RUST_`.
#[derive(Debug)]
pub struct Setup {
    folder: Folder,
    command: Command,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Setup {
    /// Returns the default settings, with an empty plugins folder.
    #[must_use]
    pub fn new() -> Self {
        // Many tests run in one process at the same time, and some of them open hundreds of connections.
        static LIMIT_RAISED: Once = Once::new();
        LIMIT_RAISED.call_once(raise_open_files);
        let folder = Folder::new();
        let mut command = Command::new(artifacts::host());
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HOST_") || name.starts_with("RUST_") {
                command.env_remove(&*name);
            }
        }
        // Environment variables instead of flags, so that a test can override them with flags.
        command
            .env("HOST_PLUGINS", folder.path())
            .env("HOST_BIND", "127.0.0.1:0")
            .env("HOST_QUIET_TIME", "50ms");
        Self {
            folder,
            command,
            stdout: None,
            stderr: None,
        }
    }

    /// Puts the example plugin or fixture of this name into the folder, as `libNAME.so`.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        self.library(&format!("lib{name}.so"), &Library::plugin(name))
    }

    /// Puts a library into the folder, in a file of this name.
    #[must_use]
    pub fn library(self, file: &str, library: &Library) -> Self {
        self.folder.put(file, library);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sends the host's stdout to `stream`. [`Host::stdout`] then has no lines.
    #[must_use]
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.stdout = Some(stream.into());
        self
    }

    /// Sends the host's stderr to `stream`. [`Host::log`] then has no lines.
    #[must_use]
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Self {
        self.stderr = Some(stream.into());
        self
    }

    /// Returns the plugins folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Starts the host. Returns when the host has printed its address.
    pub async fn start(self) -> Host {
        let mut host = self.spawn();
        host.wait_listening(1).await;
        host
    }

    /// Starts the host, and waits until it ends. For a host that does not serve.
    pub async fn run(self) -> Exit {
        self.spawn().exit().await
    }

    /// Like [`run`](Self::run), with a closed pipe as stdout, so that writes to stdout fail.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot create a pipe or a process.
    pub async fn run_unread(mut self) -> Exit {
        let (reader, writer) = io::pipe().expect("the system has pipes");
        drop(reader);
        self.command.stdin(Stdio::null()).stdout(writer);
        let output = task::spawn_blocking(move || self.command.output());
        let output = within("the end of the host", output).await;
        let output = output
            .expect("the task is not cancelled")
            .expect("cargo built the host");
        let stderr = String::from_utf8_lossy(&output.stderr);
        Exit {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: Vec::new(),
            stderr: stderr.lines().map(str::to_owned).collect(),
        }
    }

    /// Starts the host, and returns at once. [`Host::wait_listening`] then waits for its address.
    ///
    /// # Panics
    ///
    /// Panics if the process cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Host {
        let command = self
            .command
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().expect("cargo built the host");
        // The command owns the streams that the test has set. The readers of these streams see the end of the host's
        // output only after this copy is closed.
        drop(self.command);
        let stdout = Lines::of_child(child.stdout.take());
        let stderr = Lines::of_child(child.stderr.take());
        Host::new(child, self.folder, stdout, stderr)
    }
}

/// Raises the soft limit on open files of this process to the hard limit.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit is allowed");
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// How a host has ended, and everything that it has printed.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The signal that killed the host.
    pub signal: Option<i32>,
    /// The lines of stdout.
    pub stdout: Vec<String>,
    /// The lines of stderr.
    pub stderr: Vec<String>,
}

impl Exit {
    /// Returns all lines of the log, parsed.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        self.stderr.iter().map(|line| Line::parse(line)).collect()
    }

    /// Returns the lines of the log whose source is `source`: the name of a plugin, or `host`.
    #[must_use]
    pub fn log_of(&self, source: &str) -> Vec<Line> {
        self.log()
            .into_iter()
            .filter(|line| line.source == source)
            .collect()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            signal,
            stdout,
            stderr,
        } = self;
        writeln!(formatter, "code {code:?}, signal {signal:?}")?;
        stdout
            .iter()
            .chain(stderr)
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
