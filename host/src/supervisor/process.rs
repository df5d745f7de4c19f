//! Child processes: starts this program again as a worker, and reports how a child exited.
//!
//! A child is started by `std`'s `Command` and never by fork(2) alone, because only the thread that calls fork
//! continues in the child. A child is watched through a pidfd (pidfd_open(2)), because a process number can be reused
//! after an exit, while a pidfd always refers to the same process.

mod child_exit;
mod executable;
mod orphans;
#[cfg(test)]
mod tests;

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
    child_exit::{ChildExit, signal_name},
    executable::Executable,
};

/// The first argument of a worker process. The command line does not document this argument, because it is internal.
pub const WORKER_ARGUMENT: &str = "--internal-worker";

/// The children of this process. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The process numbers of the children that a [`Child`] reaps. The reaper of orphans skips these processes.
    watched: Arc<Mutex<BTreeSet<i32>>>,
}

/// A child process that was started, with the pipes of its output.
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
    /// The worker inherits the environment and the working directory. The worker gets its own process group, so that a
    /// Ctrl-C in a terminal reaches only the supervisor, and not a signal handler of a plugin. Must be called within a
    /// tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the system has no process, memory or descriptor for the worker.
    pub fn start_worker(
        &self,
        executable: &Executable,
        channel: OwnedFd,
        args: impl IntoIterator<Item = OsString>,
    ) -> io::Result<Spawned> {
        let mut command = executable.command();
        command
            .arg(WORKER_ARGUMENT)
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
        // The lock is held until the child is in the set. Otherwise the reaper of orphans could reap a child that exits
        // at once, and its exit status would be lost.
        let mut watched = self.watched();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        watched.insert(pid.as_raw_pid());
        // `adopt` locks the set again.
        drop(watched);
        let stream = |stream: Option<OwnedFd>| {
            let stream = stream.ok_or_else(|| io::Error::other("the child has no pipe"))?;
            pipe::Receiver::from_owned_fd(stream)
        };
        // A child that cannot be watched is killed and reaped, because the caller gets no `Child` for it.
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

    /// Watches a child process. An earlier image of this process may have started the child, because children survive
    /// execve(2). The process number refers to the child even if the child has exited, because nobody has reaped the
    /// child yet. Must be called within a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// Fails when this process has no such child.
    pub fn adopt(&self, pid: i32) -> io::Result<Child> {
        // `Pid::from_raw` panics for a negative number.
        let id = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        let mut watched = self.watched();
        // The call fails with ECHILD if the process is not a child of this process.
        waitid(WaitId::Pid(id), PEEK_STATUS)?;
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
            exit: None,
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
    /// The exit status. `None` until the process was reaped.
    exit: Option<ChildExit>,
    children: Children,
}

impl Child {
    /// Returns the process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the process has exited, and returns how it exited. Later calls return the same value. The future may
    /// be dropped at any time.
    ///
    /// # Errors
    ///
    /// Returns the system's error when other code of this process has reaped the child.
    pub async fn wait(&mut self) -> io::Result<ChildExit> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            // Cleared, because otherwise this loop would spin after a wakeup that is not the exit.
            self.pidfd.readable().await?.clear_ready();
        }
    }

    /// Returns how the process exited, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// Returns the system's error when other code of this process has reaped the child.
    pub fn try_wait(&mut self) -> io::Result<Option<ChildExit>> {
        if self.exit.is_none() {
            // The lock is held until the number is removed from the set, because the kernel may give the number to
            // another child as soon as this child is reaped.
            let mut watched = self.children.watched();
            let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
            let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
            if let Some(status) = status {
                watched.remove(&self.pid);
                self.exit = Some(ChildExit::from(status));
            }
        }
        Ok(self.exit)
    }

    /// Sends a signal to the process. The signal never reaches another process that has got the same number.
    ///
    /// # Errors
    ///
    /// Fails when the process has exited and was reaped.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.get_ref(), signal)?)
    }
}

/// Options of `waitid` that return the status of a child without reaping the child.
const PEEK_STATUS: WaitIdOptions = WaitIdOptions::EXITED
    .union(WaitIdOptions::NOHANG)
    .union(WaitIdOptions::NOWAIT);
