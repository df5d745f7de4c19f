//! The program of this process, to be executed again.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::Command,
};

use rustix::fs::{Mode, OFlags, open};

/// The program that this process runs, held open: it can be executed again even when its file was
/// replaced or deleted in the meantime, and is then still the same build.
#[derive(Debug)]
pub struct Executable {
    file: OwnedFd,
    build: String,
}

impl Executable {
    /// Opens the program of this process. Needs `/proc`.
    ///
    /// # Errors
    ///
    /// Returns the system's error when `/proc` is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // The link leads to the file itself, also when its name shows "(deleted)"
        // (proc_pid_exe(5)).
        let file = open("/proc/self/exe", flags, Mode::empty())?;
        let metadata = File::from(file.try_clone()?).metadata()?;
        let (len, time) = (metadata.len(), metadata.mtime());
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{version}-{len:x}.{time:x}");
        Ok(Self { file, build })
    }

    /// Which build this is: the version, and the length and the time of the file, since two builds
    /// of one version differ in them.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build
    }

    /// A command that executes the program, with no arguments yet. The name shown for the process
    /// is `host`.
    #[must_use]
    pub fn command(&self) -> Command {
        // The child resolves the link before its copy of the descriptor is closed by the exec.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(NAME);
        command
    }
}

/// What the process is called in lists of processes.
pub(super) const NAME: &str = "host";
