//! The memory of a scoreboard. The supervisor and a worker share the memory.

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
    /// Maps memory that only this process can access.
    ///
    /// # Errors
    ///
    /// When the system provides no memory.
    pub(super) fn private() -> io::Result<Self> {
        let mapping = MmapOptions::new().len(size_of::<Board>()).map_anon()?;
        Ok(Self(mapping.into()))
    }

    /// Creates memory, and maps it. Another process can map the same memory by the returned descriptor.
    ///
    /// # Errors
    ///
    /// When the system provides no memory or no descriptor.
    pub(super) fn shared() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("host-scoreboard", flags)?;
        ftruncate(&file, size_of::<Board>() as u64)?;
        // The size is sealed. If one process shrank the memory, the next access by the other process would end that
        // process by SIGBUS.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = Self::map(&file)?;
        Ok((memory, file))
    }

    /// Maps the memory behind a descriptor.
    ///
    /// # Errors
    ///
    /// When the memory is too small, or cannot be mapped.
    pub(super) fn map(file: &impl AsFd) -> io::Result<Self> {
        let len = fstat(file)?.st_size.unsigned_abs();
        if len < size_of::<Board>() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a scoreboard has {} bytes, found {len}", size_of::<Board>()),
            ));
        }
        let mapping = MmapOptions::new()
            .len(size_of::<Board>())
            .map_raw(file.as_fd().as_raw_fd())?;
        Ok(Self(mapping))
    }

    /// Returns the memory as tables.
    #[inline]
    pub(super) fn board(&self) -> &Board {
        let board = self.0.as_mut_ptr().cast::<Board>();
        // SAFETY: the mapping has at least the size of a `Board`, is aligned to a page, and exists as long as `self`. A
        // `Board` has only atomic integers, so any bytes are valid, and other processes may write at the same time.
        unsafe { &*board }
    }
}
