//! The program file of this process, to be executed again.

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

/// The program file of this process, held open. It can be executed again even if the file was replaced
/// or deleted meanwhile, and it is still the same build then.
#[derive(Debug)]
pub struct Executable {
    file: OwnedFd,
    build: String,
}

impl Executable {
    /// Opens the program file of this process. Needs `/proc`.
    ///
    /// # Errors
    ///
    /// Returns the system's error when `/proc` is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // The link leads to the file itself, even if its text says "(deleted)" (proc_pid_exe(5)).
        let file = open("/proc/self/exe", flags, Mode::empty())?;
        let metadata = File::from(file.try_clone()?).metadata()?;
        let (len, time) = (metadata.len(), metadata.mtime());
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{version}-{len:x}.{time:x}");
        Ok(Self { file, build })
    }

    /// Returns a name for this build: version, file length and modification time, because two builds of one
    /// version differ in the last two.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build
    }

    /// Returns a command that executes the program, without arguments. Lists of processes show it as `host`.
    #[must_use]
    pub fn command(&self) -> Command {
        // The descriptor is closed by the exec only after the kernel has resolved the path.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(NAME);
        command
    }
}

/// The name of the process in lists of processes.
pub(super) const NAME: &str = "host";
