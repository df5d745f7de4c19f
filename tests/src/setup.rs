//! Starts hosts for tests, and records how a host ended.

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

/// A host that is not started yet. It will have a free port, a new plugins folder, and no variables of the
/// test's environment that begin with `HOST_` or `RUST_`.
#[derive(Debug)]
pub struct Setup {
    folder: Folder,
    command: Command,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Setup {
    /// Returns a host with an empty plugins folder.
    #[must_use]
    pub fn new() -> Self {
        // All tests run in one process at the same time, and some of them open hundreds of
        // connections.
        static ROOM: Once = Once::new();
        ROOM.call_once(raise_open_files);
        let folder = Folder::new();
        let mut command = Command::new(artifacts::host());
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HOST_") || name.starts_with("RUST_") {
                command.env_remove(&*name);
            }
        }
        // Set variables and not flags, so that a test can override them with a flag.
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

    /// Sets the host's stdout. [`Host::stdout`] will have no lines.
    #[must_use]
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.stdout = Some(stream.into());
        self
    }

    /// Sets the host's stderr. [`Host::log`] will have no lines.
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

    /// Starts the host. Returns when the host serves.
    pub async fn start(self) -> Host {
        let mut host = self.spawn();
        host.listening(1).await;
        host
    }

    /// Runs the host to its end. For hosts that do not serve.
    pub async fn run(self) -> Exit {
        self.spawn().exit().await
    }

    /// Runs the host to its end with a stdout whose reader is gone.
    ///
    /// # Panics
    ///
    /// When the system cannot make a pipe or a process.
    pub async fn run_unread(mut self) -> Exit {
        let (reader, writer) = io::pipe().expect("the system has pipes");
        drop(reader);
        self.command.stdin(Stdio::null()).stdout(writer);
        let output = task::spawn_blocking(move || self.command.output());
        let output = within("the end of the host", output).await;
        let output = output
            .expect("it is not cancelled")
            .expect("cargo built the host");
        let stderr = String::from_utf8_lossy(&output.stderr);
        Exit {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: Vec::new(),
            stderr: stderr.lines().map(str::to_owned).collect(),
        }
    }

    /// Starts the host and returns at once. The host's address is not known yet.
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Host {
        let command = self
            .command
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().expect("cargo built the host");
        // Drop the command, because it holds the streams that the test has set.
        drop(self.command);
        let stdout = Lines::of_child(child.stdout.take());
        let stderr = Lines::of_child(child.stderr.take());
        Host::new(child, self.folder, stdout, stderr)
    }
}

/// Raises the limit on open files as far as the system allows.
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

/// The end of a host, and everything that it has printed.
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
    /// Returns the lines of the log.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        self.stderr.iter().map(|line| Line::parse(line)).collect()
    }

    /// Returns the lines of the log that a plugin, or `host`, wrote.
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
