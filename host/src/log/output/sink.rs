//! The descriptor that an output writes to, and how it is written without blocking the thread.
//!
//! A write to a pipe, a terminal or a socket blocks while nobody reads. Setting `O_NONBLOCK` on an
//! inherited descriptor would set it for every process that shares the open file description, such
//! as the shell. So a pipe or terminal is opened once more by way of `/proc/self/fd`, which makes an
//! open file description of this process's own (proc_pid_fd(5)), and a socket is written by `send`
//! with `MSG_DONTWAIT`.

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
    way: Way,
    /// Whether this sink holds the lock against other writers of the same pipe.
    is_locked: bool,
}

/// How a descriptor is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A pipe or terminal, by a description of this process's own that has `O_NONBLOCK`.
    Own { is_pipe: bool },
    /// A file or device for which nobody has to make room.
    Plain,
    /// A pipe or terminal that cannot be opened once more, as one of another user: it is asked for
    /// room before each piece.
    Polled,
    /// A socket.
    Socket,
}

impl Sink {
    /// A stream of the process, as it is now.
    pub(super) fn of_stream(stream: impl AsFd) -> io::Result<Self> {
        let file = stream.as_fd().try_clone_to_owned()?;
        let (file, way) = match file_type(&file)? {
            FileType::Socket => (file, Way::Socket),
            FileType::Fifo => own(file, true),
            FileType::CharacterDevice if file.is_terminal() => own(file, false),
            _ => (file, Way::Plain),
        };
        Ok(Self::new(file, way))
    }

    /// The end of the file at `path`, which is made when it is not there. Never waits for somebody
    /// to read a FIFO.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let open = |access| {
            let how = OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
            let how = how | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::io::retry_on_intr(|| open(path, access | how, Mode::from_raw_mode(0o666)))
        };
        let file = match open(OFlags::WRONLY) {
            // A FIFO that nobody reads.
            Err(Errno::NXIO) => open(OFlags::RDWR)?,
            opened => opened?,
        };
        let (file, way) = match file_type(&file)? {
            // Open for reading as well (fifo(7)), a FIFO keeps what is written before a reader
            // comes, and readers may come and go.
            FileType::Fifo => {
                let file = open(OFlags::RDWR).unwrap_or(file);
                (file, Way::Own { is_pipe: true })
            }
            FileType::CharacterDevice if file.is_terminal() => (file, Way::Own { is_pipe: false }),
            _ => (file, Way::Plain),
        };
        Ok(Self::new(file, way))
    }

    fn new(file: OwnedFd, way: Way) -> Self {
        Self {
            file: file.into(),
            way,
            is_locked: false,
        }
    }

    /// Whether it is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Device and inode, by which two sinks can be told to be one file.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.file)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Writes some of `bytes`: all of them, where that are at most `PIPE_BUF` and it is a pipe
    /// (pipe(7)). `WouldBlock` when there is no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Own { .. } | Way::Plain => self.file.write(bytes),
            Way::Polled if !self.wait(Duration::ZERO)? => Err(io::ErrorKind::WouldBlock.into()),
            // A pipe that poll(2) says is writable has room for so much.
            Way::Polled => self.file.write(&bytes[..bytes.len().min(PIPE_BUF)]),
            Way::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(send(&self.file, bytes, flags)?)
            }
        }
    }

    /// Waits until there is room, for at most `timeout`. Whether there is; true also where a write
    /// would fail at once.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        if self.way == Way::Plain {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Keeps others who write to the same pipe out, from here to [`unlock`](Self::unlock), as far as
    /// that is needed for a line of `len` bytes to stay whole. `WouldBlock` when another has it.
    ///
    /// A write of at most `PIPE_BUF` bytes is atomic by itself, so that such writers only have to keep
    /// out of the middle of longer lines: they share the lock. The lock is flock(2)'s on the pipe, by
    /// the description of this sink's own, so that it ends with the process.
    pub(super) fn lock(&mut self, len: usize) -> io::Result<()> {
        if self.is_locked || self.way != (Way::Own { is_pipe: true }) {
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

    /// Whether this sink has the lock, or needs none.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Lets others write in.
    pub(super) fn unlock(&mut self) {
        if self.is_locked {
            // It cannot fail for a lock that is held.
            let _ = flock(&self.file, FlockOperation::Unlock);
            self.is_locked = false;
        }
    }
}

fn file_type(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// The same pipe or terminal by a description of this process's own, if it can be had.
fn own(file: OwnedFd, is_pipe: bool) -> (OwnedFd, Way) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let how = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match open(path, how, Mode::empty()) {
        Ok(own) => (own, Way::Own { is_pipe }),
        Err(_) => (file, Way::Polled),
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
        let polled = Sink::new(writer.try_clone().unwrap(), Way::Polled);
        for mut sink in [Sink::of_stream(&writer).unwrap(), polled] {
            assert_eq!(sink.write(&[b'x'; 4096]).unwrap(), 4096);
            let full = sink.write(b"x").unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "{:?}", sink.way);
            assert!(!sink.wait(Duration::ZERO).unwrap());
            assert_eq!(rustix::io::read(&reader, &mut [0; 8192]).unwrap(), 4096);
            assert!(sink.wait(Duration::ZERO).unwrap());
        }
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }
}
