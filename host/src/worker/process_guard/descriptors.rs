//! Guards stdin, stdout and stderr: stores which files they refer to, and restores a descriptor that refers to another
//! file.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::fstat,
    io::{Errno, fcntl_dupfd_cloexec},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout},
};

use super::ProcessChange;

/// The first three descriptors at one moment. A descriptor that was closed is omitted.
pub(super) struct Descriptors(Vec<Descriptor>);

struct Descriptor {
    stream: &'static StandardDescriptor,
    /// The file that the descriptor referred to.
    file: Option<FileId>,
    /// A duplicate of the descriptor, from which the descriptor is restored. Plugins do not touch the duplicate,
    /// because its number is not 0, 1 or 2.
    backup: OwnedFd,
}

/// The device and inode number of a file.
type FileId = (u64, u64);

/// One of stdin, stdout and stderr.
struct StandardDescriptor {
    name: &'static str,
    /// Returns the descriptor.
    get: fn() -> BorrowedFd<'static>,
    /// Makes the descriptor a duplicate of another descriptor.
    set: fn(&OwnedFd) -> Result<(), Errno>,
}

impl Descriptors {
    /// Reads the current state of the descriptors.
    pub(super) fn read() -> Self {
        let descriptor = |stream: &'static StandardDescriptor| {
            Some(Descriptor {
                stream,
                file: file_id((stream.get)()),
                // Closed at an exec, so that child processes of plugins do not inherit the duplicates.
                backup: fcntl_dupfd_cloexec((stream.get)(), 3).ok()?,
            })
        };
        Self(STREAMS.iter().filter_map(descriptor).collect())
    }

    /// Restores the descriptors that refer to another file now, and adds a description of each to `changes`.
    pub(super) fn restore(&self, changes: &mut Vec<ProcessChange>) {
        for Descriptor {
            stream,
            file,
            backup,
        } in &self.0
        {
            if file_id((stream.get)()) != *file {
                changes.push(ProcessChange::restored(stream.name, (stream.set)(backup)));
            }
        }
    }
}

/// Returns the id of the descriptor's file, or `None` if the descriptor is closed.
fn file_id(descriptor: BorrowedFd<'_>) -> Option<FileId> {
    let stat = fstat(descriptor).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

static STREAMS: [StandardDescriptor; 3] = [
    StandardDescriptor {
        name: "stdin",
        get: stdin,
        set: |backup| dup2_stdin(backup),
    },
    StandardDescriptor {
        name: "stdout",
        get: stdout,
        set: |backup| dup2_stdout(backup),
    },
    StandardDescriptor {
        name: "stderr",
        get: stderr,
        set: |backup| dup2_stderr(backup),
    },
];
