//! The program file of this process, which can be executed again.

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

/// The program file of this process, held open. If the file is replaced or deleted in the meantime, the build of this
/// process can still be executed again.
#[derive(Debug)]
pub struct Executable {
    file: OwnedFd,
    /// See [`Executable::build`].
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
        // Opening the link opens the file itself, even if the text of the link ends in "(deleted)" (proc_pid_exe(5)).
        let file = open("/proc/self/exe", flags, Mode::empty())?;
        let metadata = File::from(file.try_clone()?).metadata()?;
        let (len, time) = (metadata.len(), metadata.mtime());
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{version}-{len:x}.{time:x}");
        Ok(Self { file, build })
    }

    /// Returns a name for this build, from the version, the file length and the modification time. The length and the
    /// time distinguish two builds of the same version.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build
    }

    /// Returns a command that executes the program, without arguments. Tools such as ps(1) show the process as `host`.
    #[must_use]
    pub fn command(&self) -> Command {
        // The descriptor is closed by the exec, but only after the kernel has resolved the path.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(PROCESS_NAME);
        command
    }
}

/// The name of the process for tools such as ps(1).
pub(super) const PROCESS_NAME: &str = "host";
