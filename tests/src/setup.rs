//! How a test starts a host, and how one ended.

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

/// A host that is not started yet: on a free port, on a plugins folder of its own, and in the environment of nobody.
#[derive(Debug)]
pub struct Setup {
    folder: Folder,
    command: Command,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Setup {
    /// A host with an empty plugins folder.
    #[must_use]
    pub fn new() -> Self {
        // Tests run at once, in one process, and some have hundreds of connections.
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
        // Variables, which flags of the tests go before.
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

    /// With the example plugin or fixture of this name in `libNAME.so`.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        self.library(&format!("lib{name}.so"), &Library::plugin(name))
    }

    /// With a library in a file of this name.
    #[must_use]
    pub fn library(self, file: &str, library: &Library) -> Self {
        self.folder.put(file, library);
        self
    }

    /// With an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// With arguments.
    #[must_use]
    pub fn args(mut self, args: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(args);
        self
    }

    /// With this working directory.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With this as its stdout, of which the test sees nothing by [`Host::stdout`] then.
    #[must_use]
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.stdout = Some(stream.into());
        self
    }

    /// With this as its stderr, of which the test sees nothing by [`Host::log`] then.
    #[must_use]
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Self {
        self.stderr = Some(stream.into());
        self
    }

    /// The plugins folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Starts the host, which serves when this returns.
    pub async fn start(self) -> Host {
        let mut host = self.spawn();
        host.listening(1).await;
        host
    }

    /// Runs the host to its end: for what does not serve.
    pub async fn run(self) -> Exit {
        self.spawn().exit().await
    }

    /// Runs the host to its end, while the reader of its stdout is gone.
    ///
    /// # Panics
    ///
    /// When the system has no pipe or no process for it.
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

    /// Starts the host, of which nothing is known yet, not even where it listens.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Host {
        let command = self
            .command
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().expect("cargo built the host");
        // The test's own streams stay open in the command until it is dropped.
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

/// How a host ended, and all that it printed.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// What it printed to stdout.
    pub stdout: Vec<String>,
    /// What it printed to stderr.
    pub stderr: Vec<String>,
}

impl Exit {
    /// The log.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        self.stderr.iter().map(|line| Line::parse(line)).collect()
    }

    /// The log of a plugin, or of `host`.
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
