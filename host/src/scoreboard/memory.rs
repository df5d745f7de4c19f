//! The memory of a scoreboard, which two processes share.

#![expect(unsafe_code, reason = "a mapping becomes a Rust reference")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

use super::layout::Board;

/// A mapping that is at least as large as a [`Board`].
#[derive(Debug)]
pub(super) struct SharedMemory(MmapRaw);

impl SharedMemory {
    /// Maps memory of this process alone.
    ///
    /// # Errors
    ///
    /// When the system gives no memory.
    pub(super) fn private() -> io::Result<Self> {
        let map = MmapOptions::new().len(size_of::<Board>()).map_anon()?;
        Ok(Self(map.into()))
    }

    /// Makes memory that another process can map by the returned descriptor. Its size is sealed: if one process could
    /// shrink it, a read by the other one would end that process by SIGBUS.
    ///
    /// # Errors
    ///
    /// When the system gives no memory or no descriptor.
    pub(super) fn shared() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("host-scoreboard", flags)?;
        ftruncate(&file, size_of::<Board>() as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = Self::of(&file)?;
        Ok((memory, file))
    }

    /// Maps memory that another process has made.
    ///
    /// # Errors
    ///
    /// When the memory is too small, or cannot be mapped.
    pub(super) fn of(file: &impl AsFd) -> io::Result<Self> {
        let len = fstat(file)?.st_size.unsigned_abs();
        if len < size_of::<Board>() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a scoreboard has {} bytes, found {len}", size_of::<Board>()),
            ));
        }
        let map = MmapOptions::new()
            .len(size_of::<Board>())
            .map_raw(file.as_fd().as_raw_fd())?;
        Ok(Self(map))
    }

    /// Returns the memory as a board.
    #[inline]
    pub(super) fn board(&self) -> &Board {
        let board = self.0.as_mut_ptr().cast::<Board>();
        // SAFETY: the mapping is large enough, aligned to a page, and lives as long as `self`; a board has only atomic
        // integers, for which all bytes are valid whoever writes them.
        unsafe { &*board }
    }
}
