//! Processes of the supervisor: starting this program again as a worker, and learning how the
//! worker ended.
//!
//! A child is started by `std`'s `Command` and never by fork alone, because only the forking thread
//! goes on in the child. A pidfd watches a child (pidfd_open(2)), so that its status is never mixed
//! up with another process's.

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

/// The first argument of a process that is a worker. It is no option of the command line, and not
/// documented there.
pub const WORKER: &str = "--internal-worker";

/// The children of this process. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The children whose status belongs to a [`Child`].
    watched: Arc<Mutex<BTreeSet<i32>>>,
}

/// A worker that was started: the process, and what it prints.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// What the process prints to stdout.
    pub stdout: pipe::Receiver,
    /// What the process prints to stderr.
    pub stderr: pipe::Receiver,
}

impl Children {
    /// Starts `executable` as a worker, with `channel` as its stdin and a pipe each as its stdout
    /// and stderr.
    ///
    /// The environment and the working directory are this process's. The process is the leader of a
    /// process group of its own: a Ctrl-C in a terminal then reaches the supervisor alone, and no
    /// signal handler of a plugin answers it first. Runs in a tokio runtime with I/O.
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

    /// Starts any command with a pipe each as its stdout and stderr.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the program cannot be started.
    pub fn start(&self, mut command: Command) -> io::Result<Spawned> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // The lock lasts until the child is in the set: the orphans' reaper must not take its
        // status.
        let mut watched = self.watched();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        watched.insert(pid.as_raw_pid());
        drop(watched);
        let stream = |stream: Option<OwnedFd>| {
            let stream = stream.ok_or_else(|| io::Error::other("the child has no pipe"))?;
            pipe::Receiver::from_owned_fd(stream)
        };
        // A child that cannot be watched is not kept.
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

    /// Watches a child that an earlier image of this process started (execve(2) keeps children).
    /// The process is still that child, even when it has ended, because nobody has asked for its
    /// status. Runs in a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Fails when no such child exists.
    pub fn adopt(&self, pid: i32) -> io::Result<Child> {
        // `Pid` panics for a negative number.
        let id = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        let mut watched = self.watched();
        // Fails with ECHILD for a process that is no child.
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

/// A child process. Dropping the value neither ends the process nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    ended: Option<ChildExit>,
    children: Children,
}

impl Child {
    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end of the process and returns how it ended; later calls return the same. May
    /// be cancelled.
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

    /// Returns how the process ended, or `None` while it runs.
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
                // The number may be another process's from now on.
                watched.remove(&self.pid);
                self.ended = Some(ChildExit::from(status));
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal to the process, and never to another one that got its number.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended and its status was taken.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.get_ref(), signal)?)
    }
}

/// Looks whether a child has ended, and leaves its status.
const PEEK: WaitIdOptions = WaitIdOptions::EXITED
    .union(WaitIdOptions::NOHANG)
    .union(WaitIdOptions::NOWAIT);
