//! Guards stdin, stdout and stderr: remembers their files, and restores them.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::fstat,
    io::{Errno, fcntl_dupfd_cloexec},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout},
};

use super::ProcessChange;

/// The first three descriptors.
pub(super) struct Descriptors(Vec<Descriptor>);

struct Descriptor {
    stream: &'static StandardFile,
    file: Option<FileId>,
    /// A duplicate with a high number, which plugins leave alone.
    kept: OwnedFd,
}

/// The device and inode number of a file.
type FileId = (u64, u64);

struct StandardFile {
    name: &'static str,
    get: fn() -> BorrowedFd<'static>,
    set: fn(&OwnedFd) -> Result<(), Errno>,
}

impl Descriptors {
    pub(super) fn now() -> Self {
        let descriptor = |stream: &'static StandardFile| {
            Some(Descriptor {
                stream,
                file: file((stream.get)()),
                kept: fcntl_dupfd_cloexec((stream.get)(), 3).ok()?,
            })
        };
        Self(STREAMS.iter().filter_map(descriptor).collect())
    }

    pub(super) fn restore(&self, changes: &mut Vec<ProcessChange>) {
        for Descriptor { stream, file, kept } in &self.0 {
            if self::file((stream.get)()) != *file {
                changes.push(ProcessChange::restore(stream.name, (stream.set)(kept)));
            }
        }
    }
}

fn file(descriptor: BorrowedFd<'_>) -> Option<FileId> {
    let stat = fstat(descriptor).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

static STREAMS: [StandardFile; 3] = [
    StandardFile {
        name: "stdin",
        get: stdin,
        set: |kept| dup2_stdin(kept),
    },
    StandardFile {
        name: "stdout",
        get: stdout,
        set: |kept| dup2_stdout(kept),
    },
    StandardFile {
        name: "stderr",
        get: stderr,
        set: |kept| dup2_stderr(kept),
    },
];
