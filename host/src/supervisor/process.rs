//! Child processes: starts this program again as a worker, and reports how a child exited.
//!
//! A child is started by `std`'s `Command` and never by fork alone, because only the forking thread goes
//! on in the child. A pidfd watches the child (pidfd_open(2)): a process number can be reused after an
//! exit, a pidfd always means the same process.

mod ended;
mod executable;
mod orphans;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::{io::unix::AsyncFd, net::unix::pipe};

pub use self::{
    ended::{ChildExit, signal_name},
    executable::Executable,
    worker::{CHANNEL_FD, end_with_supervisor, take_channel},
};

/// The first argument of a worker process. It is internal, so the command line does not document it.
pub const WORKER: &str = "--internal-worker";

/// The children of this process. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The children whose exit status belongs to a [`Child`]. The reaper of orphans leaves them alone.
    watched: Arc<Mutex<BTreeSet<i32>>>,
}

/// A child that was started, with the pipes of its output.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// The pipe of the child's stdout.
    pub stdout: pipe::Receiver,
    /// The pipe of the child's stderr.
    pub stderr: pipe::Receiver,
}

impl Children {
    /// Starts `executable` as a worker, with `channel` as stdin and pipes as stdout and stderr.
    ///
    /// The worker inherits environment and working directory. It leads a process group of its own, so that a
    /// Ctrl-C in a terminal reaches only the supervisor, and no signal handler of a plugin answers it. Must
    /// be called within a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Returns the system's error when there is no process, memory or descriptor for it.
    pub fn start_worker(
        &self,
        executable: &Executable,
        channel: OwnedFd,
        args: impl IntoIterator<Item = OsString>,
    ) -> io::Result<Spawned> {
        let mut command = executable.command();
        command
            .arg(WORKER)
            .args(args)
            .stdin(channel)
            .process_group(0);
        self.start(command)
    }

    /// Starts a command with pipes as stdout and stderr.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the program cannot be started.
    pub fn start(&self, mut command: Command) -> io::Result<Spawned> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // The lock is held until the child is in the set, so that the reaper of orphans cannot take the
        // status of a child that exits at once.
        let mut watched = self.watched();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        watched.insert(pid.as_raw_pid());
        drop(watched);
        let stream = |stream: Option<OwnedFd>| {
            let stream = stream.ok_or_else(|| io::Error::other("the child has no pipe"))?;
            pipe::Receiver::from_owned_fd(stream)
        };
        // A child that cannot be watched is killed and reaped.
        let started = self.adopt(pid.as_raw_pid()).and_then(|watch| {
            Ok(Spawned {
                child: watch,
                stdout: stream(child.stdout.take().map(OwnedFd::from))?,
                stderr: stream(child.stderr.take().map(OwnedFd::from))?,
            })
        });
        started.inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
            self.watched().remove(&pid.as_raw_pid());
        })
    }

    /// Watches a child that an earlier image of this process started (execve(2) keeps children). The number
    /// still means that child even if it has exited, because nobody has reaped it. Must be called within a
    /// tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Fails when no such child exists.
    pub fn adopt(&self, pid: i32) -> io::Result<Child> {
        // `Pid::from_raw` panics for a negative number.
        let id = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        let mut watched = self.watched();
        // The call fails with ECHILD for a process that is not a child.
        waitid(WaitId::Pid(id), PEEK)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty())?;
        #[expect(
            deprecated,
            reason = "an `OwnedFd` is the same descriptor for as long as it lives"
        )]
        let pidfd = AsyncFd::new(pidfd)?;
        watched.insert(pid);
        Ok(Child {
            pid,
            pidfd,
            ended: None,
            children: self.clone(),
        })
    }

    fn watched(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child process. Dropping the value neither kills nor reaps the process.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    ended: Option<ChildExit>,
    children: Children,
}

impl Child {
    /// Returns the process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the exit of the process and returns how it exited. Later calls return the same. The future
    /// may be dropped at any time.
    ///
    /// # Errors
    ///
    /// Returns the system's error when somebody else has taken the status.
    pub async fn wait(&mut self) -> io::Result<ChildExit> {
        loop {
            if let Some(ended) = self.try_wait()? {
                return Ok(ended);
            }
            self.pidfd.readable().await?.clear_ready();
        }
    }

    /// Returns how the process exited, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// Returns the system's error when somebody else has taken the status.
    pub fn try_wait(&mut self) -> io::Result<Option<ChildExit>> {
        if self.ended.is_none() {
            let mut watched = self.children.watched();
            let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
            let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
            if let Some(status) = status {
                // The kernel may reuse the number from now on.
                watched.remove(&self.pid);
                self.ended = Some(ChildExit::from(status));
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal to the process, and never to another process that got its number.
    ///
    /// # Errors
    ///
    /// Fails when the process has exited and was reaped.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.get_ref(), signal)?)
    }
}

/// Asks for the status of a child without reaping the child.
const PEEK: WaitIdOptions = WaitIdOptions::EXITED
    .union(WaitIdOptions::NOHANG)
    .union(WaitIdOptions::NOWAIT);
