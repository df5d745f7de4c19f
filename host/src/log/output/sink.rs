//! The descriptor of an output, which is written without blocking the thread.
//!
//! A write to a pipe, a terminal or a socket blocks while its reader takes nothing. `O_NONBLOCK` prevents
//! that, but on an inherited descriptor it would take effect in every process that shares the open file
//! description, such as the shell. So a pipe or terminal is opened once more through `/proc/self/fd`. That
//! makes an open file description of this process's own (proc_pid_fd(5)). A socket is written by `send` with
//! `MSG_DONTWAIT`.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, open},
    io::Errno,
    net::{SendFlags, send},
    pipe::PIPE_BUF,
};

/// A descriptor for lines.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    method: WriteMethod,
    /// Whether this sink holds the lock of the pipe.
    is_locked: bool,
}

/// How a descriptor is written without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMethod {
    /// A pipe or terminal, by an open file description of this process's own with `O_NONBLOCK`.
    Reopened { is_pipe: bool },
    /// A file or device, for which no reader has to make room.
    Direct,
    /// A pipe or terminal that cannot be opened once more, because another user owns it. It is polled for
    /// room before each write.
    Polled,
    /// A socket, by `send` with `MSG_DONTWAIT`.
    Socket,
}

impl Sink {
    /// Duplicates a stream of the process.
    pub(super) fn of_stream(stream: impl AsFd) -> io::Result<Self> {
        // A duplicate, so that the stream may be closed or replaced later.
        let file = stream.as_fd().try_clone_to_owned()?;
        let (file, method) = match file_type(&file)? {
            FileType::Socket => (file, WriteMethod::Socket),
            FileType::Fifo => reopen(file, true),
            FileType::CharacterDevice if file.is_terminal() => reopen(file, false),
            _ => (file, WriteMethod::Direct),
        };
        Ok(Self::new(file, method))
    }

    /// Opens the file at `path` to append to it, and makes it if it does not exist. Does not wait until a FIFO
    /// has a reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Never blocks, and never makes a terminal the controlling one of this process.
        let open = |access| {
            let how = OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
            let how = how | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::io::retry_on_intr(|| open(path, access | how, Mode::from_raw_mode(0o666)))
        };
        let file = match open(OFlags::WRONLY) {
            // A FIFO without a reader.
            Err(Errno::NXIO) => open(OFlags::RDWR)?,
            opened => opened?,
        };
        let (file, method) = match file_type(&file)? {
            // A FIFO that this process also has open for reading (fifo(7)) keeps bytes that are written
            // before a reader comes. Readers may then come and go.
            FileType::Fifo => {
                let file = open(OFlags::RDWR).unwrap_or(file);
                (file, WriteMethod::Reopened { is_pipe: true })
            }
            FileType::CharacterDevice if file.is_terminal() => {
                (file, WriteMethod::Reopened { is_pipe: false })
            }
            _ => (file, WriteMethod::Direct),
        };
        Ok(Self::new(file, method))
    }

    fn new(file: OwnedFd, method: WriteMethod) -> Self {
        Self {
            file: file.into(),
            method,
            is_locked: false,
        }
    }

    /// Whether the sink is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Returns device and inode. Two sinks with equal ones are the same file or pipe.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.file)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Writes some of `bytes`, and returns how many. To a pipe, up to `PIPE_BUF` bytes are written in whole or
    /// not at all (pipe(7)).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.method {
            WriteMethod::Reopened { .. } | WriteMethod::Direct => self.file.write(bytes),
            WriteMethod::Polled if !self.wait(Duration::ZERO)? => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            // A pipe that poll(2) reports as writable has room for `PIPE_BUF` bytes.
            WriteMethod::Polled => self.file.write(&bytes[..bytes.len().min(PIPE_BUF)]),
            WriteMethod::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(send(&self.file, bytes, flags)?)
            }
        }
    }

    /// Waits until there is room, for at most `timeout`. Returns whether there is room, or a write would fail
    /// at once.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        if self.method == WriteMethod::Direct {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Takes the lock of the pipe for a line of `len` bytes, until [`unlock`](Self::unlock). Does nothing for
    /// sinks that need no lock.
    ///
    /// A write of at most `PIPE_BUF` bytes is atomic by itself. The writer of a short line only has to keep
    /// out of the middle of longer lines, so that writers of short lines share the lock. A longer line needs
    /// several writes, and takes the lock alone. The lock is that of flock(2) on this process's own open file
    /// description, so that it ends with the process.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another process has the lock.
    pub(super) fn lock(&mut self, len: usize) -> io::Result<()> {
        if self.is_locked || self.method != (WriteMethod::Reopened { is_pipe: true }) {
            return Ok(());
        }
        let operation = if len > PIPE_BUF {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        flock(&self.file, operation)?;
        self.is_locked = true;
        Ok(())
    }

    /// Whether this sink holds the lock of the pipe.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Gives up the lock of the pipe.
    pub(super) fn unlock(&mut self) {
        if self.is_locked {
            // Cannot fail for a lock that is held.
            let _ = flock(&self.file, FlockOperation::Unlock);
            self.is_locked = false;
        }
    }
}

fn file_type(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// Opens the same pipe or terminal by an open file description of this process's own. Returns the given
/// descriptor, to be polled, if that fails.
fn reopen(file: OwnedFd, is_pipe: bool) -> (OwnedFd, WriteMethod) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let how = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match open(path, how, Mode::empty()) {
        Ok(own) => (own, WriteMethod::Reopened { is_pipe }),
        Err(_) => (file, WriteMethod::Polled),
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    #[test]
    fn no_way_of_writing_blocks_and_none_sets_a_flag_that_others_share() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        let polled = Sink::new(writer.try_clone().unwrap(), WriteMethod::Polled);
        for mut sink in [Sink::of_stream(&writer).unwrap(), polled] {
            assert_eq!(sink.write(&[b'x'; 4096]).unwrap(), 4096);
            let full = sink.write(b"x").unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "{:?}", sink.method);
            assert!(!sink.wait(Duration::ZERO).unwrap());
            assert_eq!(rustix::io::read(&reader, &mut [0; 8192]).unwrap(), 4096);
            assert!(sink.wait(Duration::ZERO).unwrap());
        }
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }
}
