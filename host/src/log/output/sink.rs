//! The descriptor of an output. A write to the descriptor does not block the thread.
//!
//! A write to a pipe, a terminal or a socket blocks while the reader reads nothing. `O_NONBLOCK` prevents the blocking.
//! But the flag belongs to the open file description, which an inherited descriptor shares with other processes, such
//! as the shell. The flag would change the writes of these processes, too. Therefore a pipe or terminal is opened again
//! through `/proc/self/fd`, which creates a separate open file description for this process (proc_pid_fd(5)). A socket
//! is written by `send` with `MSG_DONTWAIT`.

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

/// A descriptor to which lines are written.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    method: WriteMethod,
    /// Whether this sink holds the lock of the pipe.
    is_locked: bool,
}

/// How a write to the descriptor avoids blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMethod {
    /// A pipe or terminal that this process has opened itself with `O_NONBLOCK`, so that the flag affects no other
    /// process.
    Reopened { is_pipe: bool },
    /// A regular file, or a device such as `/dev/null`, where a write never has to wait for room.
    Direct,
    /// A pipe or terminal that cannot be opened again, because another user owns it. poll(2) is called before each
    /// write.
    Polled,
    /// A socket, by `send` with `MSG_DONTWAIT`.
    Socket,
}

impl Sink {
    /// Returns a sink for a stream of the process.
    pub(super) fn from_stream(stream: impl AsFd) -> io::Result<Self> {
        // Duplicates the descriptor, because the stream may be closed or replaced later.
        let file = stream.as_fd().try_clone_to_owned()?;
        let (file, method) = match file_type(&file)? {
            FileType::Socket => (file, WriteMethod::Socket),
            FileType::Fifo => reopen(file, true),
            FileType::CharacterDevice if file.is_terminal() => reopen(file, false),
            _ => (file, WriteMethod::Direct),
        };
        Ok(Self::new(file, method))
    }

    /// Opens the file at `path` for appending. Creates the file if it does not exist. Does not wait until a FIFO has a
    /// reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // NONBLOCK: opening a FIFO does not wait for a reader. NOCTTY: a terminal does not become the controlling
        // terminal of this process.
        let open = |access| {
            let flags = OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
            let flags = flags | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::io::retry_on_intr(|| open(path, access | flags, Mode::from_raw_mode(0o666)))
        };
        let file = match open(OFlags::WRONLY) {
            // A FIFO without a reader cannot be opened for writing only.
            Err(Errno::NXIO) => open(OFlags::RDWR)?,
            opened => opened?,
        };
        let (file, method) = match file_type(&file)? {
            // Opens a FIFO for reading, too (fifo(7)). While this process itself is a reader, the FIFO stores the bytes
            // that are written while no other reader exists, and other readers may come and go.
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

    /// Returns whether the sink is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Returns device and inode. Two sinks have equal device and inode if both are the same file or pipe.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.file)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Writes `bytes`, or the first part of `bytes`. Returns the number of written bytes. To a pipe, up to `PIPE_BUF`
    /// bytes are written completely or not at all (pipe(7)).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the descriptor has no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.method {
            WriteMethod::Reopened { .. } | WriteMethod::Direct => self.file.write(bytes),
            WriteMethod::Polled if !self.wait(Duration::ZERO)? => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            // Writes at most `PIPE_BUF` bytes, because a pipe that poll(2) reports as writable has room for that many
            // bytes. A longer write could block.
            WriteMethod::Polled => self.file.write(&bytes[..bytes.len().min(PIPE_BUF)]),
            WriteMethod::Socket => {
                // NOSIGNAL: if the other end is closed, the call returns an error and sends no SIGPIPE.
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(send(&self.file, bytes, flags)?)
            }
        }
    }

    /// Waits until the descriptor has room, for at most `timeout`. Returns true if the descriptor has room, or if a
    /// write would fail immediately.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        if self.method == WriteMethod::Direct {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            // A signal has interrupted the wait. The caller tries to write again.
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Locks the pipe for a line of `len` bytes, until [`unlock`](Self::unlock). Does nothing for sinks that need no
    /// lock.
    ///
    /// A line of more than `PIPE_BUF` bytes needs several writes, so the writer of a long line holds an exclusive lock.
    /// A shorter line is written by one atomic write. The writer of a short line holds a shared lock, because short
    /// lines need protection only from the long lines of other writers. The lock is flock(2) on the open file
    /// description of this process, so the kernel releases the lock when the process ends.
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

    /// Returns whether this sink holds the lock of the pipe.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Releases the lock of the pipe. Does nothing if this sink does not hold the lock.
    pub(super) fn unlock(&mut self) {
        if self.is_locked {
            // The result is ignored, because unlocking a held lock cannot fail.
            let _ = flock(&self.file, FlockOperation::Unlock);
            self.is_locked = false;
        }
    }
}

/// Returns the type of the file behind a descriptor.
fn file_type(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// Opens the pipe or terminal `file` again, with a separate open file description. If that fails, returns `file` and
/// [`WriteMethod::Polled`].
fn reopen(file: OwnedFd, is_pipe: bool) -> (OwnedFd, WriteMethod) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match open(path, flags, Mode::empty()) {
        Ok(own) => (own, WriteMethod::Reopened { is_pipe }),
        Err(_) => (file, WriteMethod::Polled),
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    #[test]
    fn no_write_method_blocks_or_sets_a_flag_that_other_processes_share() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        let polled = Sink::new(writer.try_clone().unwrap(), WriteMethod::Polled);
        for mut sink in [Sink::from_stream(&writer).unwrap(), polled] {
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
