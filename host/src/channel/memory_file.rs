//! Bytes of any size in a sealed memory file, whose descriptor another process receives.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// Creates a memory file with these bytes (memfd_create(2)). The file is sealed, so that no process can change the
/// bytes any more.
///
/// # Errors
///
/// Returns the system's error when memory or descriptors are exhausted.
pub fn bytes_to_fd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("host-state", flags)?);
    file.write_all(bytes)?;
    // SEAL forbids further changes of the seals.
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Returns the bytes of a memory file from [`bytes_to_fd`].
///
/// # Errors
///
/// Fails when the descriptor is not a sealed memory file. An unsealed file is refused, because a writer could change
/// the bytes during the read.
pub fn fd_to_bytes(descriptor: &impl AsFd) -> io::Result<Vec<u8>> {
    let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
    if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
        return Err(io::Error::other("the descriptor is no sealed memory file"));
    }
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    // Reads at an explicit offset, because all duplicates of a descriptor share one file offset. `bytes_to_fd` left the
    // offset at the end of the file.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The seals that a memory file must have before its bytes are read (`F_ADD_SEALS`, fcntl(2)). They forbid writes and
/// changes of the size.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW);
